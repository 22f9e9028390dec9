#!lua flags=allow-oom
-- Delete consumers of a group that have been silent for long, and only with nothing pending:
-- XGROUP DELCONSUMER would take their entries along.
-- KEYS: stream.  ARGV: group, least idle in ms.  Returns the names.
local gone = {}
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local fields = {}
  for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
  if fields['pending'] == 0 and fields['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields['name'])
    gone[#gone + 1] = fields['name']
  end
end
return gone
