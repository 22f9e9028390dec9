#!lua flags=allow-oom
-- After the server's clock went back: what was delivered in its future counts as delivered now.
-- Until then nobody could claim it, however silent its owner. Nothing else of an entry changes.
-- KEYS: stream.  ARGV: group, the id to begin at, most.  Returns the id to go on from, "" at the end.
local last, looked = '', redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3])
for _, entry in ipairs(looked) do
  last = '(' .. entry[1]
  -- XPENDING says 0 for the future, too; for what was delivered this very millisecond it is true.
  -- XCLAIM would drop what was trimmed from the pending list.
  if entry[3] == 0 and #redis.call('XRANGE', KEYS[1], entry[1], entry[1]) > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], entry[2], 0, entry[1], 'RETRYCOUNT', entry[4], 'JUSTID')
  end
end
return #looked == tonumber(ARGV[3]) and last or ''
