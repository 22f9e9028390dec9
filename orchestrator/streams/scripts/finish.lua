#!lua flags=allow-oom
-- End attempts: result event + marker + acknowledgement, in one step, and only for the owner.
-- KEYS: results, delayed, delayed bodies, then for each attempt: its tasks stream, its marker.
-- ARGV: group, consumer, marker ttl in ms, producer, timestamp, number of required groups, their
--   names; then for each attempt ten: entry id, times delivered, kind, attempt, task id,
--   event (JSON), when it is due, body of the delayed message (JSON), state,
--   message id of the event.
-- kind: "end" a terminal event; "retry" event and delayed; "postpone" delayed without an event;
--   a retry is due in so many ms by this server's clock, what is postponed at that ms since 1970;
--   "reject" an event about the entry, the task is not touched; "drop" only acknowledge, where the
--   task has ended.
-- Returns for each attempt: "ok"; "stale", this worker does not own the entry (nothing was done);
--   "ended", another entry of the task was first (acknowledged, nothing said).
-- include acknowledged.lua
local group, consumer, ttl, producer, timestamp = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local required = {}
for i = 7, 6 + tonumber(ARGV[6]) do required[#required + 1] = ARGV[i] end

local standing = {}
local function exists(stream)
  if standing[stream] == nil then standing[stream] = redis.call('EXISTS', stream) == 1 end
  return standing[stream]
end

-- Owned: pending for this consumer at this very delivery. Or vanished: neither pending nor in the
-- stream (a foreign XTRIM, FLUSHALL), so nobody else can hold it, and no later attempt has begun.
local function owned(stream, id, times, seen_attempt, attempt)
  if exists(stream) then
    local found = redis.pcall('XPENDING', stream, group, id, id, 1)
    if found.err == nil and found[1] then
      return found[1][2] == consumer and tonumber(found[1][4]) == times
    end
    if #redis.call('XRANGE', stream, id, id) > 0 then return false end
  end
  return not seen_attempt or tonumber(seen_attempt) == attempt
end

-- By the clock that `promote` looks at: a worker's own may be wrong by hours.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- All markers by one command; what is set here is remembered, as a group may end a task twice.
local markers, seen = {}, {}
for i = 5, #KEYS, 2 do markers[#markers + 1] = KEYS[i] end
for i, value in ipairs(redis.call('MGET', unpack(markers))) do seen[markers[i]] = value end
local function mark(marker, value)
  redis.call('SET', marker, value, 'PX', ttl)
  seen[marker] = value
end

local answers, done = {}, {}
local function finished(stream, id)
  done[stream] = done[stream] or {}
  table.insert(done[stream], id)
end

for i = 1, (#KEYS - 3) / 2 do
  local stream, marker = KEYS[2 + 2 * i], KEYS[3 + 2 * i]
  local at = 6 + #required + (i - 1) * 10
  local id, times, kind = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local attempt, task, event = tonumber(ARGV[at + 4]), ARGV[at + 5], ARGV[at + 6]
  local due, body, state, message = ARGV[at + 7], ARGV[at + 8], ARGV[at + 9], ARGV[at + 10]
  local seen_attempt, digest, ended
  if seen[marker] then
    seen_attempt, digest, ended = string.match(seen[marker], '^(%d*):([^:]*):(.*)$')
  end
  if not owned(stream, id, times, seen_attempt, attempt) then
    answers[i] = 'stale'
  elseif ended and ended ~= '' and kind ~= 'reject' then
    finished(stream, id)
    answers[i] = (kind == 'drop') and 'ok' or 'ended'
  elseif kind == 'drop' then
    -- Nothing ended this task: its entry stays, for whoever owns it next.
    answers[i] = 'stale'
  else
    if kind == 'retry' or kind == 'postpone' then
      if kind == 'retry' then due = now() + tonumber(due) end
      redis.call('ZADD', KEYS[2], due, task)
      redis.call('HSET', KEYS[3], task, body)
    end
    if kind ~= 'postpone' then
      redis.call('XADD', KEYS[1], '*', 'id', message,
        'timestamp', timestamp, 'data', event, 'producer', producer)
    end
    if kind == 'retry' then
      -- This attempt is over: told a second time (the first answer was lost), it is stale.
      mark(marker, (attempt + 1) .. ':' .. (digest or '') .. ':')
    end
    if kind == 'end' then
      mark(marker, ARGV[at + 4] .. ':' .. (digest or '') .. ':' .. state)
    end
    finished(stream, id)
    answers[i] = 'ok'
  end
end
for stream, ids in pairs(done) do
  if exists(stream) then acknowledge(stream, group, ids, true, required) end
end
return answers
