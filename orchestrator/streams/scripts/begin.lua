#!lua flags=allow-oom
-- May these attempts begin? One answer an attempt: "run", "ended:<state>" or "conflict".
-- KEYS: marker of each.  ARGV: ttl in ms, then digest and attempt of each.
local answers = {}
for i, marker in ipairs(KEYS) do
  local digest, attempt = ARGV[2 * i], tonumber(ARGV[2 * i + 1])
  -- In nearly all cases nobody has begun it, and one command is enough.
  local begun = attempt .. ':' .. digest .. ':'
  local seen = redis.call('SET', marker, begun, 'NX', 'GET', 'PX', ARGV[1])
  local answer = 'run'
  if seen then
    local known_attempt, known_digest, state = string.match(seen, '^(%d*):([^:]*):(.*)$')
    if known_digest ~= '' and known_digest ~= digest then
      answer = 'conflict'
    elseif state ~= '' then
      answer = 'ended:' .. state
    elseif tonumber(known_attempt) > attempt then
      attempt = tonumber(known_attempt)
    end
  end
  if seen and answer == 'run' then
    redis.call('SET', marker, attempt .. ':' .. digest .. ':', 'PX', ARGV[1])
  end
  answers[i] = answer
end
return answers
