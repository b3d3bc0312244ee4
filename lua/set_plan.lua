#!lua
-- set_plan: assign a plan, or take it away. What was used of the period's allowance stays used, and the balance as it is.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] plan, '' for none
-- ARGV[3] time zone of the account, '' to leave it as it is
-- ARGV[4] operation key
-- ARGV[5] milliseconds that the operation record is kept
-- ARGV[6] fingerprint of the request
-- ARGV[7] journal limit, entries
-- ARGV[8] cause, JSON
-- ARGV[9] conditions with the terms of the new plan, see lib/conditions
--
-- Reply: ok | replayed, epoch, entry id ('' where it was so already)
-- Errors, in order: conflict; recovery_needed; stale <activation>; terms <plan, assigned (ms), its time zone, now (ms),
--   windows>; journal_full <limit>

-- include lib/credit_model
-- include lib/operation_record

local id, zone, fingerprint = ARGV[2], ARGV[3], ARGV[6]
local conditions = parse_conditions(ARGV[9])

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = open_account(conditions)
if not account then
  return 'recovery_needed'
end
zone = zone ~= '' and zone or account.plan.zone
if account.plan.id == id and (id == '' or account.plan.zone == zone) and not (account.created and conditions.opens) then
  return 'replayed\t' .. account.epoch .. '\t'
end
account.time = account.time or now()
if conditions.activation ~= 0 and conditions.activation < account.plan.activation then
  return 'stale\t' .. integer(account.plan.activation)
end
local terms = conditions.terms and parse_plan_terms(conditions.terms) or NO_PLAN_TERMS
if id ~= '' and not (terms.plan == id and runs(terms, account.time)) then
  return ask_plan_terms(account, id, '0', zone)
end
local full = journal_full(tonumber(ARGV[7]))
if full then
  return full
end

open_with_bonus(account, conditions)
if id == '' then
  account.plan = NO_PLAN
  apply_period(account, {finish = 0})
else
  account.plan = {
    id = id, assigned = integer(account.time), zone = zone, activation = terms.activation, scopes = scopes_of(terms),
  }
  apply_period(account, terms)
end
save_plan(account)
load_all_scopes(account, account.created and {} or redis.call('HGETALL', KEYS[1]))
for name, scope in pairs(account.scopes) do
  apply_plan_caps(account, scope, terms, caps_activation(account.plan, name))
end
save_scopes(account)
local entry_id = commit(account, {operation = 'set_plan', key = ARGV[4], cause = ARGV[8]})
return answer_and_remember(fingerprint, ARGV[5], account.epoch .. '\t' .. entry_id)
