#!lua
-- extend: let a lease hold more, under the floor that it was admitted under, for the same member. One that is inside
-- another takes it out of that one's hold.
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
--   of the lease>; parent_closed <id, closed>; parent_expired <id>; stale <activation>; terms <plan, assigned (ms), its
--   time zone, now (ms), windows>; frozen <why>; again; cap <id, scope, window, limit, used, held, end (ms), needed>;
--   budget <parent, needed, left, held inside it, next expiry (ms)>; insufficient <needed, balance, held, floor, next
--   expiry (ms), allowance, its end (ms)>; over_limit; journal_full <limit>

local lease_id, amount, version = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local operation_key, record_ms, fingerprint = ARGV[5], ARGV[6], ARGV[7]
local journal_limit, cause, conditions_text = tonumber(ARGV[8]), ARGV[9], ARGV[10]

-- include lib/once
-- include lib/opening
-- include lib/open_lease
-- include lib/admission

local conditions = parse_conditions(conditions_text)
begin(account, conditions, lease_id)
local lease, refusal = open_lease(account, lease_id)
if not lease then
  return refusal
end
local terms = lease.terms
if not priced_alike(lease, version, terms.plan) then
  return 'reprice\t' .. lease.version .. '\t' .. terms.plan
end
local parent
if terms.parents then
  parent, refusal = open_parent(account, parents_of(account, lease)[1], 'closed')
  if not parent then
    return refusal
  end
end
if conditions ~= NO_CONDITIONS then
  conditions.member = terms.member
  -- A lease rests on one period's allowance, also where all of it was taken by leases inside of it: what began in an
  -- older one is extended from the balance.
  local period = account.period
  local runs = period and period.number == terms.period and account.time < period.finish
  conditions.skip_allowance = not parent and terms.period ~= 0 and not runs
end
local scope_amounts = amounts_by_scope(amount, terms.member, conditions.models)
refusal = refuse(account, conditions, scope_amounts, amount, lease.floor, 0, nil, parent)
if refusal then
  return refusal
end
if not parent and account.held + amount > MAX_MICRO then
  return account.more_is_due and 'again' or 'over_limit'
end
-- include lib/admit

local allowance, period, caps, inherited
if parent then
  allowance, caps, inherited =
    hold_inside(account, parent, scope_amounts, amount, false, terms.caps, terms.inherited)
  period = parent.lease.terms.period
else
  allowance = from_allowance(account, conditions, amount)
  take_hold(account, amount, allowance)
  caps, period = count_hold(account, scope_amounts, terms.caps), account.period and account.period.number
end
lease.amount = lease.amount + amount
lease.terms = with_terms(terms, {
  allowance = terms.allowance + allowance, period = allowance > 0 and period or terms.period, caps = caps,
  inherited = inherited,
})
if account.extended then
  lease.terms.models = format_models(add_models(parse_models(terms.models), conditions.models))
  save_scopes(account)
end
local details = take_details(account)
local entry_id = commit(account, {
  operation = 'extend', key = operation_key, amount = amount, version = version, cause = cause, details = details,
  lease_id = lease_id, lease = format_lease(lease),
})
return answer_once(account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) .. '\t' ..
  integer(account.held) .. '\t' .. integer(lease.amount) .. '\t' .. integer(lease.terms.allowance) .. '\t' .. details)
