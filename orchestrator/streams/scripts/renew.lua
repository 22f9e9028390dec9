#!lua flags=allow-oom
-- Renew the lease of entries that this consumer owns.
-- KEYS: stream, then the marker of each entry.
-- ARGV: group, consumer, marker ttl in ms, then of each: entry id, "<attempt>:<digest>:".
-- Returns the ids whose run should stop: owned by another worker, or the task ended elsewhere.
-- An entry that has vanished (foreign XTRIM, FLUSHALL) is left alone: XCLAIM would drop it from the
-- pending list. Its marker, kept fresh and made anew, tells the reconciler that somebody is at work.
local lost = {}
for i = 2, #KEYS do
  local id, begun = ARGV[2 * i], ARGV[2 * i + 1]
  local found = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1)
  if found.err then found = {} end
  local seen = redis.call('GET', KEYS[i])
  if seen and string.match(seen, '^%d*:[^:]*:(.+)$') then
    lost[#lost + 1] = id
  elseif found[1] and found[1][2] ~= ARGV[2] then
    lost[#lost + 1] = id
  else
    if found[1] and #redis.call('XRANGE', KEYS[1], id, id) > 0 then
      redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID')
    end
    redis.call('SET', KEYS[i], seen or begun, 'PX', ARGV[3])
  end
end
return lost
