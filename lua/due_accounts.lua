#!lua flags=no-writes
-- due_accounts: the accounts of a partition on which something has fallen due, soonest first.
--
-- KEYS[1] due
-- ARGV[1] how many at the most
--
-- Reply: {account id, ...}

-- include lib/integer
-- include lib/now

return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', integer(now()), 'LIMIT', 0, ARGV[1])
