#!lua flags=allow-oom
-- Read new entries from several lanes in the given order, at most `free` in all.
-- KEYS: a stream for each step (a lane may stand in several steps).
-- ARGV: group, consumer, free, then the most to read of each step.
-- Returns {stream, {{id, fields}, ...}} pairs as XREADGROUP does.
local free, taken = tonumber(ARGV[3]), {}
for i, stream in ipairs(KEYS) do
  local want = math.min(free, tonumber(ARGV[3 + i]))
  if want > 0 then
    local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', want,
      'STREAMS', stream, '>')
    if reply then
      taken[#taken + 1] = reply[1]
      free = free - #reply[1][2]
    end
  end
end
return taken
