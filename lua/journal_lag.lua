#!lua flags=no-writes
-- journal_lag: how many entries of a partition's journal a consumer group has not acknowledged.
--
-- KEYS[1] journal
-- ARGV[1] group
--
-- Reply: entries; all that the journal holds where the group has not begun, or the server cannot tell

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local fields = {}
  for index = 1, #info, 2 do
    fields[info[index]] = info[index + 1]
  end
  if fields.name == ARGV[1] and fields.lag then
    return fields.lag + fields.pending
  end
end
return redis.call('XLEN', KEYS[1])
