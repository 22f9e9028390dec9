#!lua flags=allow-oom
-- Take over entries whose owner has been silent for the lease.
-- KEYS: stream.  ARGV: group, consumer, least idle in ms, cursor, count.
-- Returns {next cursor, {{id, fields, delivery count}, ...}, {ids gone from the stream}}.
local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4],
  'COUNT', ARGV[5])
local claimed = {}
for i, entry in ipairs(reply[2]) do
  local found = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
  claimed[i] = {entry[1], entry[2], found[1] and found[1][4] or 1}
end
return {reply[1], claimed, reply[3] or {}}
