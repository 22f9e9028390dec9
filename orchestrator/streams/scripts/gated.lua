-- Included by `admit` and `tell`: what is known of a provider, in one hash, by this server's clock.
-- Times are seconds since 1970. A field that is not there is nothing known:
--   at                             when somebody last asked or told
--   closed_until, closed_by        "limited" or "unavailable"
--   closings, tries                how often it closed; in a row, without an answer between
--   reopened_at                    when the last closing by a limit was over
--   probe_until                    half open: one call is under way, and the others wait for it
--   since, sent, refused, before   requests since then: all, refused, let in by earlier closings
--   pace, last                     learned: requests a second; the slot that was taken last
--   left, resets_at, most, span, out    what the provider says: requests left until its reset, the
--                                  most of both that it said, and the calls that are under way
--   issued, served                 the queue: numbers given out, numbers that have gone
local KEPT = 3600     -- seconds without a call, then all is forgotten
local CAUTION = 0.95  -- of the pace that was seen to be let in
local SLOWEST = 1 / 60  -- requests a second
local FEW = 3         -- requests

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local function known(key)
  local gate, found = {}, redis.call('HGETALL', key)
  for i = 1, #found, 2 do gate[found[i]] = tonumber(found[i + 1]) or found[i + 1] end
  -- The clock went back: all that it says lies in the future.
  if gate.at and gate.at > now + 1 then return {} end
  return gate
end

local function keep(key, gate)
  gate.at = now
  local fields = {}
  for name, value in pairs(gate) do
    fields[#fields + 1] = name
    -- As text, since a number would be printed with 17 digits.
    fields[#fields + 1] = type(value) == 'number'
      and string.gsub(string.format('%.6f', value), '%.?0+$', '') or value
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(fields))
  redis.call('EXPIRE', key, KEPT)
end

-- What the window that a closing ends lets one expect: what was let in, over all of its time; nil
-- where next to nothing was, since others have used the key, or nobody has yet. At a further
-- refusal it falls; after answers by half at most, since it may be a stranger's doing, too.
local function learned(gate)
  local seconds = math.max(gate.closed_until - gate.since, 0.001)
  local accepted = gate.sent - (gate.refused or 0)
  if not gate.pace and (accepted < 1 or accepted < FEW and seconds > 10) then return nil end
  local found = CAUTION * accepted / seconds
  if gate.pace then
    found = math.min(found, 0.9 * gate.pace)
    if gate.tries == 1 then found = math.max(found, gate.pace / 2) end
  end
  return math.max(found, SLOWEST)
end
