#!lua flags=allow-oom
-- One holder of a name at a time: taken when free, renewed by its holder, free again after the ttl.
-- KEYS: the name's key.  ARGV: holder, ttl in ms.  Returns 1 for the holder.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
