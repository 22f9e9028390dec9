#!lua flags=allow-oom
-- Trim the past of a stream: entries that every group has acknowledged, and older than `before`.
-- KEYS: stream.
-- ARGV: before (an entry id), number of required groups, their names, "1" to pass over the others.
-- Returns {how many went, the first id that must stay, 1 when another group held it back}.
local function parse(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local function earlier(a, b)
  local ams, aseq = parse(a)
  local bms, bseq = parse(b)
  return ams < bms or (ams == bms and aseq < bseq)
end
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, '0-0', 0} end
local required, pass_over, names = {}, ARGV[#ARGV] == '1', {}
for i = 1, tonumber(ARGV[2]) do required[ARGV[2 + i]] = true end
local safe, held = ARGV[1], 0
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local fields = {}
  for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
  names[fields['name']] = true
  local first
  if fields['pending'] > 0 then
    first = redis.call('XPENDING', KEYS[1], fields['name'])[2]
  else
    local ms, seq = string.match(fields['last-delivered-id'], '^(%d+)%-(%d+)$')
    -- As text, since a double would print 1.7e+12.
    first = ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
  end
  if required[fields['name']] or not pass_over then
    if earlier(first, safe) then
      safe = first
      held = required[fields['name']] and 0 or 1
    end
  end
end
for name in pairs(required) do
  if not names[name] then return {0, '0-0', 0} end
end
return {redis.call('XTRIM', KEYS[1], 'MINID', safe), safe, held}
