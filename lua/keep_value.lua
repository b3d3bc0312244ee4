#!lua
-- keep_value: keep a value beside an account for a time. It is no money: nothing is journalled, and a ledger knows nothing
-- of it. A server that is full refuses it.
--
-- KEYS[1] value
-- ARGV[1] value, of any bytes
-- ARGV[2] milliseconds that it is kept
-- ARGV[3] always | only_if: whatever is kept now, or only where that is ARGV[4]
-- ARGV[4] the value that is replaced, empty for none
--
-- Reply: the value that is kept now: the new one, or another that was not to be replaced

if ARGV[3] == 'only_if' then
  local kept = redis.call('GET', KEYS[1]) or ''
  if kept ~= ARGV[4] then
    return kept -- which is the new one, where the call is made again for its reply was lost
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
