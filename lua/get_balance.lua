#!lua flags=no-writes
-- get_balance: what an account has. What has fallen due is counted, and nothing is written.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due (not read)   KEYS[5] meta
-- ARGV[1] account id
--
-- Reply: ok, balance, held, seq
-- Errors: recovery_needed

-- include lib/account
-- include lib/lease
-- include lib/now

local account = load_account()
if not account then
  return 'recovery_needed'
end
local balance, held = account.balance, account.held
if account.due then
  local time = now()
  if account.due <= time then
    for _, record in ipairs(redis.call('HVALS', KEYS[2])) do
      local lease = parse_lease(record)
      if lease.state == 'open' and lease.expires <= time then
        held = held - lease.amount
        if lease.on_expiry == 'charge' then
          balance = balance - lease.amount
        end
      end
    end
  end
end
return 'ok\t' .. integer(balance) .. '\t' .. integer(held) .. '\t' .. integer(account.seq)
