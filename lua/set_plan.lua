#!lua
-- set_plan: assign a plan, or take it away. What was used of the period's allowance stays used, and the balance as it
-- is.
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
-- Errors, in order: conflict; recovery_needed; due; stale <activation>; terms <plan, assigned (ms), its time zone, now
--   (ms), windows>; journal_full <limit>

local account_key = KEYS[1]
local id, zone = ARGV[2], ARGV[3]
local operation_key, record_ms, fingerprint = ARGV[4], ARGV[5], ARGV[6]
local journal_limit, cause, conditions_text = tonumber(ARGV[7]), ARGV[8], ARGV[9]

-- include lib/change
-- include lib/plan_caps

local conditions = parse_conditions(conditions_text)
zone = zone ~= '' and zone or account.plan.zone
if account.plan.id == id and (id == '' or account.plan.zone == zone) and not (account.created and conditions.opens) then
  return 'replayed\t' .. account.epoch .. '\t'
end
if conditions.activation ~= 0 and conditions.activation < account.plan.activation then
  return 'stale\t' .. integer(account.plan.activation)
end
local terms = plan_terms_of(conditions)
if id ~= '' and not (terms.plan == id and runs(terms, account.time)) then
  return ask_plan_terms(account, id, '0', zone)
end
-- include lib/admit

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
load_all_scopes(account, account.created and {} or redis.call('HGETALL', account_key))
for name, scope in pairs(account.scopes) do
  apply_plan_caps(account, scope, terms, caps_activation(account.plan, name))
end
save_scopes(account)
return commit_change('set_plan')
