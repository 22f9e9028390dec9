#!lua flags=no-writes
-- Where the messages of tasks are.
-- KEYS: delayed, then for each task: its stream, its marker.
-- ARGV: group, ms of a marker that was renewed within the lease, then for each task: task id,
--   entry id ("" when it was never seen).
-- Returns for each: "here" (in the stream, or pending), "delayed", "ended", or "gone".
local found = {}
for i = 1, (#KEYS - 1) / 2 do
  local stream, marker = KEYS[2 * i], KEYS[2 * i + 1]
  local task, entry = ARGV[2 * i + 1], ARGV[2 * i + 2]
  local seen = redis.call('GET', marker)
  local answer = 'gone'
  if redis.call('ZSCORE', KEYS[1], task) then
    answer = 'delayed'
  elseif entry ~= '' and redis.call('EXISTS', stream) == 1 then
    if #redis.call('XRANGE', stream, entry, entry) > 0 then
      answer = 'here'
    else
      -- Trimmed by somebody, and yet its worker is at work and will end it.
      local pending = redis.pcall('XPENDING', stream, ARGV[1], entry, entry, 1)
      if pending.err == nil and pending[1] then answer = 'here' end
    end
  end
  if answer == 'gone' and seen then
    if string.match(seen, '^%d*:[^:]*:.') then
      answer = 'ended'
    elseif redis.call('PTTL', marker) > tonumber(ARGV[2]) then
      answer = 'here'  -- its message was trimmed away; a worker that lives is at work all the same
    end
  end
  found[i] = answer
end
return found
