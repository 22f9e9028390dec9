#!lua flags=allow-oom
-- Take over, at once, the entries of consumers whose processes are known to have ended.
-- KEYS: stream.  ARGV: group, consumer, most, then the names of those that ended.
-- Returns {{{id, fields, delivery count}, ...}, {ids gone from the stream}}.
local taken, gone, left = {}, {}, tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[1]) == 0 then return {taken, gone} end
for i = 4, #ARGV do
  if left == 0 then break end
  for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', left, ARGV[i])) do
    local body = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry[1])
    if body[1] then
      taken[#taken + 1] = {entry[1], body[1][2], entry[4] + 1}
    else
      gone[#gone + 1] = entry[1]
    end
    left = left - 1
  end
end
return {taken, gone}
