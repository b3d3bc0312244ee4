#!lua flags=no-writes
-- journal_lag: how many entries of a partition's journal a consumer group has not acknowledged.
--
-- KEYS[1] journal
-- ARGV[1] group
--
-- Reply: entries; all that the journal holds where the group has not begun, or the server cannot tell

-- include lib/group

local group = find_group(KEYS[1], ARGV[1])
if group and group.lag then
  return group.lag + group.pending
end
return redis.call('XLEN', KEYS[1])
