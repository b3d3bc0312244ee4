#!lua flags=no-writes
-- due_accounts: the accounts of a partition on which something has fallen due, soonest first.
--
-- KEYS[1] due
-- ARGV[1] how many at the most
-- ARGV[2] how many to pass over
--
-- Reply: {account id, ...}

-- include lib/integer
-- include lib/now

return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', integer(now()), 'LIMIT', ARGV[2], ARGV[1])
