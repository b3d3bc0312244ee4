#!lua flags=no-writes
-- kept_value: a value that is kept beside an account.
--
-- KEYS[1] value
--
-- Reply: the value, or nil where none is kept

return redis.call('GET', KEYS[1])
