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
if account.due then
  local time = now()
  if account.due <= time then
    expired = apply_due(account, time)
    more = account.due and account.due <= time and '1' or '0'
  end
end
return 'ok\t' .. integer(expired) .. '\t' .. more
