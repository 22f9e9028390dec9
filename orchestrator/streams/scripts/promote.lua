#!lua
-- Publish what is due, by Redis' own clock.
-- KEYS: delayed, delayed bodies.  ARGV: most, timestamp.
-- The streams are named in the bodies; on a cluster the prefix's hash tag keeps them in one slot.
-- Returns {how many were published, ms until the next is due, or -1}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, task in ipairs(due) do
  local body = redis.call('HGET', KEYS[2], task)
  if body then
    local message = cjson.decode(body)
    local fields = {'id', message['id'], 'timestamp', ARGV[2],
      'data', message['data'], 'producer', message['producer']}
    if message['traceparent'] then
      fields[9], fields[10] = 'traceparent', message['traceparent']
    end
    redis.call('XADD', message['stream'], '*', unpack(fields))
  end
  redis.call('ZREM', KEYS[1], task)
  redis.call('HDEL', KEYS[2], task)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {#due, first[2] and math.max(0, tonumber(first[2]) - now) or -1}
