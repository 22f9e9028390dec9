#!lua flags=allow-oom
-- May a call of this provider begin? Evenly spaced by the pace that is known; else at once.
-- KEYS: the provider's gate.  ARGV: the caller's number in the queue, "0" without one.
-- Returns {microseconds until its turn, 0 to go; its number; closings until now, for `tell`}.
-- include gated.lua
local SPREAD = 0.025   -- seconds between those who come back where no pace is known: 40 a second
local LOOK = 1         -- seconds between looks at a probe
local PROBE = 30       -- seconds for which a probe is waited for; its worker may have died
local LATE = 0.25      -- seconds a slot waits for whose turn it is; half of a short one's length
local ABSENT = 60      -- seconds: every waiter asks more often (MOST of gates.py is 30)
local IDLE, YOUNG, OLD = 10, 60, 600  -- seconds: see `count`
local RISE, AFTER = 0.05, 180  -- of the pace, seconds: see `rise`

local gate, number = known(KEYS[1]), tonumber(ARGV[1])
local silent = now - (gate.at or 0)
local issued, served = gate.issued or 0, gate.served or 0
if silent > ABSENT or number > issued then number = 0 end
if silent > ABSENT then served = issued end
local ahead = number > 0 and math.max(0, number - served - 1) or issued - served

-- The window in which requests are counted. Each closing begins one; without any, a pause does.
-- One that gets old is halved: its rate stays, and what comes now weighs more.
local function count()
  if not gate.pace and silent > IDLE then gate.since = nil end
  if not gate.since then gate.since, gate.sent, gate.refused = now, 0, 0 end
  local age = now - gate.since
  if age > (gate.pace and OLD or YOUNG) and not gate.before then
    gate.since, gate.sent, gate.refused = now - age / 2, gate.sent / 2, gate.refused / 2
  end
  gate.sent = gate.sent + 1
end

local function answer(wait)
  gate.issued, gate.served = issued, served
  keep(KEYS[1], gate)
  return {math.ceil(wait * 1000000), number, gate.closings or 0}
end

-- While somebody waits: 5 % in the first 3 minutes without a refusal, 50 % in 10, ninefold in 20.
-- Each time that it goes too far costs one refusal.
local function rise()
  local calm = now - gate.reopened_at
  local step = 2 * RISE * calm / AFTER ^ 2 / gate.pace
  gate.pace = gate.pace * (1 + math.min(step, RISE))
end

local function go(slot, skipped)
  if number > served then served = served + 1 end
  if skipped then served = math.min(issued, served + 1) end
  if number > 0 and gate.pace then rise() end
  count()
  gate.last = slot
  if gate.left then gate.left, gate.out = gate.left - 1, (gate.out or 0) + 1 end
  number = 0
  return answer(0)
end

local function wait(opens, between)
  if number == 0 then
    issued = issued + 1
    number = issued
  end
  return answer(math.max(opens - now, 0) + math.max(ahead * between, 0.001))
end

if gate.closed_by and now < gate.closed_until then
  local pace = gate.closed_by == 'limited' and learned(gate)
  return wait(gate.closed_until, pace and 1 / pace or SPREAD)
end
if gate.closed_by == 'limited' and not gate.probe_until then
  gate.pace = learned(gate)
  if gate.pace then
    gate.before = gate.sent - (gate.refused or 0)
    gate.sent, gate.refused = gate.before, 0
    gate.reopened_at, gate.closed_until, gate.closed_by = gate.closed_until, nil, nil
  end
end
if gate.closed_by then
  -- Half open, after an outage, or a limit that taught nothing.
  if now < (gate.probe_until or 0) then return wait(now + LOOK, SPREAD) end
  gate.probe_until = now + PROBE
  return go(now, false)
end

local between = gate.pace and 1 / gate.pace or 0
local opens = math.max((gate.last or 0) + between, gate.reopened_at or 0)
if gate.span then
  if now >= gate.resets_at then
    -- It says nothing of the time after its reset: as much as it ever said, until it does.
    gate.left, gate.resets_at, gate.out = gate.most, now + gate.span, 0
  end
  if gate.left < 1 then
    opens, between = math.max(opens, gate.resets_at), math.max(between, gate.span / gate.most)
  else
    between = math.max(between, (gate.resets_at - now) / gate.left)
    opens = math.max(opens, (gate.last or 0) + between)
  end
end
local late = between == 0 or now - opens > math.min(LATE, between / 2)
if now < opens or (ahead > 0 and not late) then return wait(opens, between) end
-- Who came a little late keeps to the beat. Nobody came: who asks now takes it, and that number
-- is passed over.
return go(late and now or opens, late and ahead > 0)
