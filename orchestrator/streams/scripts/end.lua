#!lua flags=allow-oom
-- End a task from outside a worker (cancel, expiry): the marker decides who was first.
-- KEYS: marker, results, delayed, delayed bodies, tasks stream.
-- ARGV: task id, attempt, state, event (JSON), marker ttl in ms, producer, timestamp, message id,
--   group, entry id ("" to end it also while a worker has it in hand).
-- Returns "" when this call ended it, otherwise the state in which it had ended before, or "running".
if ARGV[10] ~= '' and redis.call('EXISTS', KEYS[5]) == 1 then
  local held = redis.pcall('XPENDING', KEYS[5], ARGV[9], ARGV[10], ARGV[10], 1)
  if held.err == nil and held[1] then return 'running' end
end
local seen = redis.call('GET', KEYS[1])
local attempt, digest = ARGV[2], ''
if seen then
  local known_attempt, known_digest, state = string.match(seen, '^(%d*):([^:]*):(.*)$')
  if state ~= '' then return state end
  attempt, digest = known_attempt, known_digest
end
redis.call('XADD', KEYS[2], '*', 'id', ARGV[8], 'timestamp', ARGV[7], 'data', ARGV[4],
  'producer', ARGV[6])
redis.call('SET', KEYS[1], attempt .. ':' .. digest .. ':' .. ARGV[3], 'PX', ARGV[5])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
return ''
