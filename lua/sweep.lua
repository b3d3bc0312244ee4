#!lua flags=allow-oom
-- sweep: apply what has fallen due on an account that nobody touches.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta
-- ARGV[1] account id
-- ARGV[2] 1 to write nothing: the answer is what would be
--
-- Reply: ok, leases that expired, grants that expired, micro-credits that went with them, 1 where more is due
-- Errors: recovery_needed

local due_key, account_id = KEYS[4], ARGV[1]
local dry_run = ARGV[2] == '1'

-- include lib/loaded
-- include lib/due
-- include lib/extended

account.read_only = dry_run
load_extended(account)
account.time = now()
local leases, grants, credits, more = 0, 0, 0, '0'
if account.due and account.due <= account.time then
  leases, grants, credits = apply_due(account)
  more = account.due and account.due <= account.time and '1' or '0'
elseif not account.read_only then -- the index was wrong: correct it
  if account.due then
    redis.call('ZADD', due_key, integer(account.due), account_id)
  else
    redis.call('ZREM', due_key, account_id)
  end
end
return 'ok\t' .. integer(leases) .. '\t' .. integer(grants) .. '\t' .. integer(credits) .. '\t' .. more
