#!lua
-- keep_value: keep a value beside an account for a time. It is no money: it is in no journal and no ledger.
-- May fail with OOM.
--
-- KEYS[1] value
-- ARGV[1] value, of any bytes
-- ARGV[2] milliseconds that it is kept
-- ARGV[3] always | only_if: whatever is kept now, or only where that is ARGV[4]
-- ARGV[4] the value that is replaced, empty for none
--
-- Reply: the value that is kept now: the new one, or another that was not to be replaced

local value_key = KEYS[1]
local value, kept_ms, only_if, replaced = ARGV[1], ARGV[2], ARGV[3] == 'only_if', ARGV[4]

if only_if then
  local kept = redis.call('GET', value_key) or ''
  if kept ~= replaced then
    return kept -- the new value itself, where the call is repeated because its reply was lost
  end
end
redis.call('SET', value_key, value, 'PX', kept_ms)
return value
