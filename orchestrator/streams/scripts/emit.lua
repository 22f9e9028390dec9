#!lua flags=allow-oom
-- Say something about a running attempt, only for its owner and only while the task has not ended.
-- KEYS: tasks stream, marker, results.
-- ARGV: group, consumer, entry id, delivery count, message id, event (JSON), producer, timestamp.
-- Returns 1 when it was said.
local ended = string.match(redis.call('GET', KEYS[2]) or '', '^%d*:[^:]*:(.+)$')
if ended or redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local found = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if found.err then return 0 end
if not found[1] or found[1][2] ~= ARGV[2] or tonumber(found[1][4]) ~= tonumber(ARGV[4]) then
  return 0
end
redis.call('XADD', KEYS[3], '*', 'id', ARGV[5], 'timestamp', ARGV[8], 'data', ARGV[6],
  'producer', ARGV[7])
return 1
