#!lua flags=allow-oom
-- Entries pending for this consumer that it does not know of: a reply that was lost on the way.
-- XREADGROUP ... 0 would raise every delivery counter, and with it fence off the runs in flight.
-- KEYS: stream.  ARGV: group, consumer, most, then the known ids.
-- What was given back, counter 0, is whoever's claims it next.
-- Returns {{{id, fields, delivery count}, ...}, {ids gone from the stream}}.
local known, found, gone = {}, {}, {}
if redis.call('EXISTS', KEYS[1]) == 0 then return {found, gone} end
for i = 4, #ARGV do known[ARGV[i]] = true end
for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[3], ARGV[2])) do
  if not known[entry[1]] and entry[4] > 0 then
    local body = redis.call('XRANGE', KEYS[1], entry[1], entry[1])
    if body[1] then
      found[#found + 1] = {entry[1], body[1][2], entry[4]}
    else
      redis.call('XACK', KEYS[1], ARGV[1], entry[1])
      gone[#gone + 1] = entry[1]
    end
  end
end
return {found, gone}
