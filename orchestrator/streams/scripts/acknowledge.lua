#!lua flags=allow-oom
-- Acknowledge entries for one group, and delete those that every group has now acknowledged.
-- KEYS: stream.  ARGV: group, "1" to delete, number of required groups, their names, entry ids.
-- Returns how many were acknowledged.
-- include acknowledged.lua
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local required, ids = {}, {}
for i = 4, 3 + tonumber(ARGV[3]) do required[#required + 1] = ARGV[i] end
for i = 4 + #required, #ARGV do ids[#ids + 1] = ARGV[i] end
return acknowledge(KEYS[1], ARGV[1], ids, ARGV[2] == '1', required)
