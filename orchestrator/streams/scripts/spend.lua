#!lua flags=allow-oom
-- Tell of a model call that was answered, and count it against the budget of its task.
-- Nobody asks who owns the task: what was spent was spent, by a superseded attempt, too.
-- KEYS: results, what the task has spent.
-- ARGV: message id, event (JSON), producer, timestamp, ttl in ms (0: the task has no budget), then
--   requests, input tokens, output tokens, cached tokens, tool calls, billionths of a dollar, calls
--   without a price.
-- Told again after a lost answer it counts twice here, to the strict side; the record, which knows
-- each call's id, keeps it once.
redis.call('XADD', KEYS[1], '*', 'id', ARGV[1], 'timestamp', ARGV[4], 'data', ARGV[2],
  'producer', ARGV[3])
if ARGV[5] ~= '0' then
  local names = {'requests', 'input_tokens', 'output_tokens', 'cached_tokens', 'tool_calls',
    'nano_usd', 'unpriced_requests'}
  for i, name in ipairs(names) do redis.call('HINCRBY', KEYS[2], name, ARGV[5 + i]) end
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
return 1
