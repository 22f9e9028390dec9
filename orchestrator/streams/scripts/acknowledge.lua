#!lua flags=allow-oom
-- Acknowledge entries for one group, and delete those that every group has now acknowledged.
-- KEYS: stream.  ARGV: group, "1" to delete, number of required groups, their names, entry ids.
-- Returns how many were acknowledged.
local stream, group, delete = KEYS[1], ARGV[1], ARGV[2] == '1'
local required = tonumber(ARGV[3])
local acknowledged = 0
if redis.call('EXISTS', stream) == 0 then return 0 end
local others, complete = {}, true

local function parse(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

if delete then
  local names = {}
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local fields = {}
    for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
    names[fields['name']] = true
    if fields['name'] ~= group then
      local ms, seq = parse(fields['last-delivered-id'])
      others[#others + 1] = {name = fields['name'], ms = ms, seq = seq, pending = fields['pending']}
    end
  end
  -- A required group that does not exist yet has read nothing: then nothing may go.
  for i = 1, required do
    if not names[ARGV[3 + i]] then complete = false end
  end
end

for i = 4 + required, #ARGV do
  local id = ARGV[i]
  acknowledged = acknowledged + redis.call('XACK', stream, group, id)
  local free = delete and complete
  if free then
    local ms, seq = parse(id)
    for _, other in ipairs(others) do
      if ms > other.ms or (ms == other.ms and seq > other.seq)
        or (other.pending > 0 and #redis.call('XPENDING', stream, other.name, id, id, 1) > 0) then
        free = false
        break
      end
    end
  end
  if free then redis.call('XDEL', stream, id) end
end
return acknowledged
