#!lua flags=allow-oom
-- Take over entries whose owner has been silent for the lease.
-- KEYS: stream.  ARGV: group, consumer, least idle in ms, cursor, count, then the ids in hand.
-- Returns {next cursor, {{id, fields, delivery count}, ...}, {ids gone from the stream},
--   1 at the beginning of a sweep where the server's clock is behind its own entries}.
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
local behind = 0
if ARGV[4] == '0-0' then
  local time = redis.call('TIME')
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local fields = {}
    for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
    local ms = tonumber(string.match(fields['last-delivered-id'], '^(%d+)'))
    -- A second, so that one entry that somebody dated a little ahead is no alarm.
    if fields['name'] == ARGV[1] and ms > time[1] * 1000 + 1000 then behind = 1 end
  end
end
return {reply[1], claimed, reply[3] or {}, behind}
