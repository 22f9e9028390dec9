#!lua flags=allow-oom
-- Renew the lease of entries that this consumer owns at this very delivery.
-- KEYS: stream, then the marker of each entry.
-- ARGV: group, consumer, marker ttl in ms, then entry id and delivery count of each.
-- Returns the ids whose run should stop: owned by another worker, or the task ended elsewhere.
-- An entry that has vanished (foreign XTRIM) is left alone: XCLAIM would drop it from the pending
-- list, and with it the last trace that somebody is at work.
local lost = {}
if redis.call('EXISTS', KEYS[1]) == 0 then return lost end
for i = 2, #KEYS do
  local id, count = ARGV[2 * i], tonumber(ARGV[2 * i + 1])
  local found = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)
  local seen = redis.call('GET', KEYS[i])
  if seen and string.match(seen, '^%d*:[^:]*:(.+)$') then
    lost[#lost + 1] = id
  elseif found[1] and (found[1][2] ~= ARGV[2] or tonumber(found[1][4]) ~= count) then
    lost[#lost + 1] = id
  elseif found[1] and #redis.call('XRANGE', KEYS[1], id, id) > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID')
  end
  redis.call('PEXPIRE', KEYS[i], ARGV[3])
end
return lost
