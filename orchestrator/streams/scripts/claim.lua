#!lua flags=allow-oom
-- Take over entries whose owner has been silent for the lease.
-- KEYS: stream.  ARGV: group, consumer, least idle in ms, cursor, count, then the ids in hand.
-- Returns {next cursor, {{id, fields, delivery count}, ...}, {ids gone from the stream}}.
-- What this consumer has in hand itself (the server or the lease thread stood still) is no start:
-- its delivery counter, which is the fence of the run under way, is put back.
local known = {}
for i = 6, #ARGV do known[ARGV[i]] = true end
local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4],
  'COUNT', ARGV[5])
local claimed = {}
for _, entry in ipairs(reply[2]) do
  local found = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
  local count = found[1] and found[1][4] or 1
  if known[entry[1]] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry[1], 'RETRYCOUNT', count - 1, 'JUSTID')
  else
    claimed[#claimed + 1] = {entry[1], entry[2], count}
  end
end
return {reply[1], claimed, reply[3] or {}}
