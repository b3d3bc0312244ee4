#!lua flags=allow-oom
-- sweep: apply what has fallen due on an account that nobody touches.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta
-- ARGV[1] account id
--
-- Reply: ok, leases that expired, 1 where more is due
-- Errors: recovery_needed

-- include lib/due

local account = load_account()
if not account then
  return 'recovery_needed'
end
local expired, more = 0, '0'
local time = now()
if account.due and account.due <= time then
  expired = apply_due(account, time)
  more = account.due and account.due <= time and '1' or '0'
elseif account.due then
  redis.call('ZADD', KEYS[4], integer(account.due), ARGV[1])  -- an index that was wrong is put right
else
  redis.call('ZREM', KEYS[4], ARGV[1])
end
return 'ok\t' .. integer(expired) .. '\t' .. more
