#!lua flags=allow-oom
-- Take over, at once, a share of the entries of consumers whose processes are known to have ended.
-- KEYS: stream.  ARGV: group, consumer, most, between how many they are shared, then the names of
-- those that ended.  Returns {{{id, fields, delivery count}, ...}, {ids gone from the stream}}.
local taken, gone, left = {}, {}, tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[1]) == 0 then return {taken, gone} end
local ended = {}
for i = 5, #ARGV do ended[ARGV[i]] = true end
for _, owner in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1])[4] or {}) do
  local share = ended[owner[1]] and math.ceil(tonumber(owner[2]) / tonumber(ARGV[4])) or 0
  share = math.min(share, left)
  if share > 0 then
    for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', share, owner[1])) do
      local body = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry[1])
      if body[1] then
        taken[#taken + 1] = {entry[1], body[1][2], entry[4] + 1}
      else
        gone[#gone + 1] = entry[1]
      end
    end
    left = left - share
  end
end
return {taken, gone}
