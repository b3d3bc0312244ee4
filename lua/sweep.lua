#!lua flags=allow-oom
-- sweep: apply what has fallen due on an account that nobody touches.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta
-- ARGV[1] account id
-- ARGV[2] 1 to write nothing: the answer is what would be
--
-- Reply: ok, leases that expired, grants that expired, micro-credits that went with them, 1 where more is due
-- Errors: recovery_needed

-- include lib/due

local account = load_account()
if not account then
  return 'recovery_needed'
end
account.read_only = ARGV[2] == '1'
load_extended(account)
account.time = now()
local leases, grants, credits, more = 0, 0, 0, '0'
if account.due and account.due <= account.time then
  leases, grants, credits = apply_due(account)
  more = account.due and account.due <= account.time and '1' or '0'
elseif not account.read_only then  -- an index that was wrong is put right
  if account.due then
    redis.call('ZADD', KEYS[4], integer(account.due), ARGV[1])
  else
    redis.call('ZREM', KEYS[4], ARGV[1])
  end
end
return 'ok\t' .. integer(leases) .. '\t' .. integer(grants) .. '\t' .. integer(credits) .. '\t' .. more
