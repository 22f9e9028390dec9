#!lua flags=allow-oom
-- Give entries back at once: idle for a day, so the next claim takes them; not counted as a start.
-- KEYS: stream.  ARGV: group, consumer, then entry id and delivery count of each.
-- Returns how many were handed back.
local done = 0
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 3, #ARGV, 2 do
  local id, count = ARGV[i], tonumber(ARGV[i + 1])
  local found = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1)
  if found.err then return done end
  if found[1] and found[1][2] == ARGV[2] and tonumber(found[1][4]) == count then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'IDLE', 86400000,
      'RETRYCOUNT', count - 1, 'JUSTID')
    done = done + 1
  end
end
return done
