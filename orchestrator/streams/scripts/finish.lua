#!lua flags=allow-oom
-- End attempts: result event + marker + acknowledgement, in one step, and only for the owner.
-- KEYS: results, delayed, delayed bodies, then for each attempt: its tasks stream, its marker.
-- ARGV: group, consumer, marker ttl in ms, producer, timestamp, number of required groups, their
--   names; then for each attempt ten: entry id, delivery count, kind, attempt, task id,
--   event (JSON), due in ms, body of the delayed message (JSON), state,
--   message id of the event.
-- kind: "end" a terminal event; "retry" event and delayed; "postpone" delayed without an event;
--   "reject" an event about the entry, the task is not touched; "drop" only acknowledge, where the
--   task has ended.
-- Returns for each attempt: "ok"; "stale", this worker does not own the entry (nothing was done);
--   "ended", another entry of the task was first (acknowledged, nothing said).
local group, consumer, ttl, producer, timestamp = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local required = tonumber(ARGV[6])
local groups_of = {}

local function parse(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function other_groups(stream)
  local known = groups_of[stream]
  if known then return known end
  known = {complete = true}
  local names = {}
  local exists = redis.call('EXISTS', stream) == 1
  for _, info in ipairs(exists and redis.call('XINFO', 'GROUPS', stream) or {}) do
    local fields = {}
    for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
    names[fields['name']] = true
    if fields['name'] ~= group then
      local ms, seq = parse(fields['last-delivered-id'])
      known[#known + 1] = {name = fields['name'], ms = ms, seq = seq, pending = fields['pending']}
    end
  end
  for i = 1, required do
    if not names[ARGV[6 + i]] then known.complete = false end
  end
  groups_of[stream] = known
  return known
end

local function acknowledge(stream, id)
  redis.call('XACK', stream, group, id)
  local others = other_groups(stream)
  if not others.complete then return end
  local ms, seq = parse(id)
  for _, other in ipairs(others) do
    if ms > other.ms or (ms == other.ms and seq > other.seq)
      or (other.pending > 0 and #redis.call('XPENDING', stream, other.name, id, id, 1) > 0) then
      return
    end
  end
  redis.call('XDEL', stream, id)
end

-- Owned: pending for this consumer at this very delivery. Or vanished: neither pending nor in the
-- stream (a foreign XTRIM, FLUSHALL), so nobody else can hold it, and no later attempt has begun.
local function owned(stream, id, count, marker, attempt)
  if redis.call('EXISTS', stream) == 1 then
    local found = redis.pcall('XPENDING', stream, group, id, id, 1)
    if found.err == nil and found[1] then
      return found[1][2] == consumer and tonumber(found[1][4]) == count
    end
    if #redis.call('XRANGE', stream, id, id) > 0 then return false end
  end
  local seen = redis.call('GET', marker)
  if not seen then return true end
  return tonumber(string.match(seen, '^(%d*):')) == attempt
end

local function delay(task, due, body)
  redis.call('ZADD', KEYS[2], due, task)
  redis.call('HSET', KEYS[3], task, body)
end

local answers = {}
local n = (#KEYS - 3) / 2
for i = 1, n do
  local stream, marker = KEYS[2 + 2 * i], KEYS[3 + 2 * i]
  local at = 6 + required + (i - 1) * 10
  local id, count, kind = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local attempt, task, event = tonumber(ARGV[at + 4]), ARGV[at + 5], ARGV[at + 6]
  local due, body, state = ARGV[at + 7], ARGV[at + 8], ARGV[at + 9]
  local message = ARGV[at + 10]
  local seen = redis.call('GET', marker)
  local ended = seen and string.match(seen, '^%d*:[^:]*:(.+)$')
  if not owned(stream, id, count, marker, attempt) then
    answers[i] = 'stale'
  elseif ended and kind ~= 'reject' then
    acknowledge(stream, id)
    answers[i] = (kind == 'drop') and 'ok' or 'ended'
  elseif kind == 'drop' then
    -- Nothing ended this task: its entry stays, for whoever owns it next.
    answers[i] = 'stale'
  else
    if kind == 'retry' or kind == 'postpone' then delay(task, due, body) end
    if kind == 'end' or kind == 'retry' or kind == 'reject' then
      redis.call('XADD', KEYS[1], '*', 'id', message,
        'timestamp', timestamp, 'data', event, 'producer', producer)
    end
    local digest = seen and string.match(seen, '^%d*:([^:]*):') or ''
    if kind == 'retry' then
      -- This attempt is over: told a second time (the first answer was lost), it is stale.
      redis.call('SET', marker, (attempt + 1) .. ':' .. digest .. ':', 'PX', ttl)
    end
    if kind == 'end' then
      redis.call('SET', marker, ARGV[at + 4] .. ':' .. digest .. ':' .. state, 'PX', ttl)
    end
    acknowledge(stream, id)
    answers[i] = 'ok'
  end
end
return answers
