#!lua
-- extend: let a lease hold more, under the floor that it was admitted under, for the same member. One that is inside another
-- takes it out of that one's hold.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- KEYS[7] closed lease
-- ARGV[1] account id
-- ARGV[2] lease id
-- ARGV[3] amount to hold in addition, micro-credits
-- ARGV[4] version of the pricing document that it was priced under, 0 for none, -1 to ask for the lease's
-- ARGV[5] operation key
-- ARGV[6] milliseconds that the operation record is kept
-- ARGV[7] fingerprint of the request
-- ARGV[8] journal limit, entries
-- ARGV[9] cause, JSON
-- ARGV[10] conditions, see lib/conditions
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount that the lease holds now, allowance, details
-- Errors, in order: conflict; recovery_needed; closed <settled | released>; not_found; expired; reprice <version, plan
--   of the lease>; parent_closed <id, closed>; parent_expired <id>; stale <activation>; terms <plan, assigned (ms), its time
--   zone, now (ms), windows>; frozen <why>; again; cap <id, scope, window, limit, used, held, end (ms), needed>; budget
--   <parent, needed, left, held inside it, next expiry (ms)>; insufficient <needed, balance, held, floor, next expiry
--   (ms), allowance, its end (ms)>; over_limit; journal_full <limit>

-- include lib/open_lease
-- include lib/operation_record

local lease_id, amount, fingerprint = ARGV[2], tonumber(ARGV[3]), ARGV[7]
local conditions = parse_conditions(ARGV[10])

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = open_account(conditions, lease_id)
if not account then
  return 'recovery_needed'
end
local lease, refused = open_lease(account, lease_id)
if not lease then
  return refused
end
local terms = lease.terms
if not priced_alike(lease, ARGV[4], terms.plan) then
  return 'reprice\t' .. lease.version .. '\t' .. terms.plan
end
local parent
if terms.parents then
  parent, refused = open_parent(account, parents_of(account, lease)[1], 'closed')
  if not parent then
    return refused
  end
end
if conditions ~= NO_CONDITIONS then
  conditions.member = terms.member
  -- A lease rests on one period's allowance, also where all of it was taken by leases inside of it: what began in an older
  -- one is extended from the balance.
  local period = account.period
  local runs = period and period.number == terms.period and account.time < period.finish
  conditions.skip_allowance = not parent and terms.period ~= 0 and not runs
end
local scope_amounts = amounts_by_scope(amount, terms.member, conditions.models)
refused = refuse(account, conditions, scope_amounts, amount, lease.floor, 0, nil, parent)
if refused then
  return refused
end
if not parent and account.held + amount > MAX_MICRO then
  return account.more_is_due and 'again' or 'over_limit'
end
refused = journal_full(tonumber(ARGV[8]))
if refused then
  return refused
end

local allowance, period, caps, inherited
if parent then
  allowance, caps, inherited = hold_inside(account, parent, scope_amounts, amount, false, terms.caps, terms.inherited)
  period = parent.lease.terms.period
else
  allowance = from_allowance(account, conditions, amount)
  take_hold(account, amount, allowance)
  caps, period = count_hold(account, scope_amounts, terms.caps), account.period and account.period.number
end
lease.amount = lease.amount + amount
lease.terms = with_terms(terms, {
  allowance = terms.allowance + allowance, period = allowance > 0 and period or terms.period, caps = caps, inherited = inherited,
})
if account.extended then
  lease.terms.models = format_models(add_models(parse_models(terms.models), conditions.models))
  save_scopes(account)
end
local details = take_details(account)
local entry_id = commit(account, {
  operation = 'extend', key = ARGV[5], amount = amount, version = ARGV[4], cause = ARGV[9], details = details,
  lease_id = lease_id, lease = format_lease(lease),
})
return answer_and_remember(fingerprint, ARGV[6], account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) ..
  '\t' .. integer(account.held) .. '\t' .. integer(lease.amount) .. '\t' .. integer(lease.terms.allowance) .. '\t' .. details)
