#!lua flags=no-writes
-- kept_value: a value that is kept beside an account.
--
-- KEYS[1] value
--
-- Reply: the value, or nil where none is kept

local value_key = KEYS[1]

return redis.call('GET', value_key)
