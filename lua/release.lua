#!lua flags=allow-oom
-- release: close a lease without a charge. What an expired lease was charged comes back.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] closed lease
-- ARGV[1] account id
-- ARGV[2] lease id
-- ARGV[3] cause, JSON
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount that it no longer holds
-- Errors, in order: closed settled; recovery_needed; not_found; over_limit

local lease_id, cause = ARGV[2], ARGV[3]

-- include lib/closed_lease
-- include lib/opening

local how, _, first_answer = read_closed_lease()
if how == 'settled' then
  return 'closed\tsettled'
elseif how then
  return 'replayed\t' .. first_answer
end
-- include lib/loaded

begin(account, NO_CONDITIONS, lease_id)
local lease = find_lease(account, lease_id)
if not lease then
  return 'not_found'
end

local before, released = account.balance, 0
if lease.state == 'open' then
  released = lease.amount
  give_up_hold(account, lease)
elseif lease.charged > 0 then
  return_charge(account, lease)
end
if account.balance > MAX_MICRO then
  return 'over_limit'
end
save_scopes(account)
local entry_id = commit(account, {
  operation = 'release', key = 'lease/' .. lease_id .. '/release', amount = released,
  balance_change = account.balance - before, version = lease.version, cause = cause, details = take_details(account),
  lease_id = lease_id, lease = '',
})
expire_unheld_grants(account)
return answer_and_close('released', '', account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) .. '\t' ..
  integer(account.held) .. '\t' .. integer(released))
