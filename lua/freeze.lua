#!lua
-- freeze: let an account spend nothing new, or let it spend again.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] who and why, '' to let it spend again
-- ARGV[3] operation key
-- ARGV[4] milliseconds that the operation record is kept
-- ARGV[5] fingerprint of the request
-- ARGV[6] cause, JSON
-- ARGV[7] conditions, see lib/conditions: they open a new account
--
-- Reply: ok | replayed, epoch, entry id ('' where it was so already)
-- Errors, in order: conflict; recovery_needed; due; terms <plan, assigned (ms), its time zone, now (ms), windows>

local reason = ARGV[2]
local operation_key, record_ms, fingerprint = ARGV[3], ARGV[4], ARGV[5]
local cause, conditions_text = ARGV[6], ARGV[7]

-- include lib/change
-- include lib/plan_terms

if account.created then
  local conditions = parse_conditions(conditions_text)
  local refusal = apply_plan(account, conditions, plan_terms_of(conditions))
  if refusal then
    return refusal
  end
end
if (account.frozen == '') == (reason == '') then
  return 'replayed\t' .. account.epoch .. '\t'
end
set_extended(account, 'frozen', reason)
local operation = 'freeze'
if reason == '' then
  operation = 'unfreeze'
end
return commit_change(operation)
