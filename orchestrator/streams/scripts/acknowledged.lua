-- Included by `acknowledge` and `finish`: acknowledge entries of one stream for one group, and
-- delete those that every group has acknowledged by now.

local function parse(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function before(ms, seq, other)
  return ms < other[1] or (ms == other[1] and seq < other[2])
end

-- The groups of a stream but this one: what each has read, and the range of what it has pending.
-- nil where a required group does not exist yet: it has read nothing, so nothing may go.
local function other_groups(stream, group, required)
  local others, names = {}, {}
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local fields = {}
    for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
    names[fields['name']] = true
    if fields['name'] ~= group then
      local other = {name = fields['name'], read = {parse(fields['last-delivered-id'])}}
      if fields['pending'] > 0 then
        local pending = redis.call('XPENDING', stream, other.name)
        other.oldest, other.newest = {parse(pending[2])}, {parse(pending[3])}
      end
      others[#others + 1] = other
    end
  end
  for _, name in ipairs(required) do
    if not names[name] then return nil end
  end
  return others
end

local function held_by(other, stream, id)
  local ms, seq = parse(id)
  if before(other.read[1], other.read[2], {ms, seq}) then return true end
  if not other.oldest or before(ms, seq, other.oldest)
    or before(other.newest[1], other.newest[2], {ms, seq}) then
    return false
  end
  return #redis.call('XPENDING', stream, other.name, id, id, 1) > 0
end

-- At most about a thousand ids: they are unpacked. Returns how many were pending.
local function acknowledge(stream, group, ids, delete, required)
  local done = redis.call('XACK', stream, group, unpack(ids))
  local others = delete and other_groups(stream, group, required)
  if not others then return done end
  local free = {}
  for _, id in ipairs(ids) do
    local held = false
    for _, other in ipairs(others) do held = held or held_by(other, stream, id) end
    if not held then free[#free + 1] = id end
  end
  if #free > 0 then redis.call('XDEL', stream, unpack(free)) end
  return done
end
