#!lua flags=allow-oom
-- What a call came to, for all who share the provider's key.
-- KEYS: the provider's gate, the set of all gates' names.
-- ARGV: "answered", "limited" or "unavailable"; the provider's name; closings when it was let in,
--   -1 where nobody knows; seconds to stay away, "" without; requests left and seconds until the
--   reset, both "" without.
-- Returns 1 when this closed the gate.
-- include gated.lua
local BACK_OFF = {limited = 60, unavailable = 30}  -- seconds at most; from 1 s, doubled each time
local LONGEST = 3600  -- seconds: then one looks again, whatever was said
local SHARED = 120    -- seconds: what is left until a reset later than that is not shared out
local JUMP = 0.5      -- seconds that one reset differs from itself: the answers' time on the way

local gate, news, closings = known(KEYS[1]), ARGV[1], tonumber(ARGV[3])
local asked = tonumber(ARGV[4])
local fresh = closings < 0 or closings >= (gate.closings or 0)  -- let in after the last closing
local closed = gate.closed_by and now < gate.closed_until

local function allow(remaining, seconds)
  if seconds > SHARED and remaining > 0 then return end
  local resets_at = now + seconds
  local surely = math.max(0, remaining - (gate.out or 0))
  if not gate.resets_at or now >= gate.resets_at or resets_at > gate.resets_at + JUMP then
    gate.left = surely
    gate.out = gate.resets_at and 0 or gate.out
  else
    -- Between the two: those under way may be in what it said, or not yet.
    gate.left = math.max(surely, math.min(remaining, gate.left))
  end
  gate.resets_at = resets_at
  gate.most = math.max(gate.most or 1, remaining)
  gate.span = math.max(gate.span or 0.001, seconds)
end

local function answered()
  gate.out = gate.out and math.max(0, gate.out - 1)
  if not closed and (gate.closed_by == 'unavailable' or gate.probe_until and fresh) then
    gate.closed_by, gate.closed_until, gate.probe_until, gate.tries = nil, nil, nil, nil
    gate.since, gate.before = nil, nil
  elseif not gate.closed_by and fresh then
    -- The first since a limit was over: from there on it counts anew.
    if gate.before then
      gate.sent, gate.since, gate.before = gate.sent - gate.before, gate.reopened_at, nil
    end
    gate.tries = nil
  end
  if ARGV[5] ~= '' then allow(tonumber(ARGV[5]), tonumber(ARGV[6])) end
  return 0
end

local function refused()
  gate.out = gate.out and math.max(0, gate.out - 1)
  if news == 'limited' and (closed or fresh) then gate.refused = (gate.refused or 0) + 1 end
  if closed then
    -- In flight when it closed: no second closing, but it may know better until when.
    if asked then
      gate.closed_until = math.max(gate.closed_until, now + math.min(asked, LONGEST))
    end
    return 0
  end
  if not fresh then return 0 end
  gate.tries = (gate.tries or 0) + 1
  local back_off = math.min(BACK_OFF[news], 2 ^ math.min(gate.tries - 1, 10))
  -- What it says is believed the first time; refused again after it, there is a least.
  local least = gate.tries > 1 and back_off / 2 or 0.05
  gate.closed_until = now + (asked and math.min(math.max(asked, least), LONGEST) or back_off)
  gate.closed_by, gate.closings, gate.probe_until = news, (gate.closings or 0) + 1, nil
  if not gate.since then gate.since, gate.sent, gate.refused = now, 1, 1 end
  redis.call('SADD', KEYS[2], ARGV[2])
  return 1
end

local told
if news == 'answered' then told = answered() else told = refused() end
keep(KEYS[1], gate)
return told
