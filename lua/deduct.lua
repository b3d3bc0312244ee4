#!lua
-- deduct: charge in one step, where no lease is needed.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] amount, micro-credits
-- ARGV[3] floor, micro-credits: how low the available credits may go
-- ARGV[4] version of the pricing document, 0 for none
-- ARGV[5] activation of that document, 0 for none
-- ARGV[6] operation key
-- ARGV[7] milliseconds that the operation record is kept
-- ARGV[8] fingerprint of the request
-- ARGV[9] journal limit, entries
-- ARGV[10] cause, JSON
-- ARGV[11] conditions, see lib/conditions
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount, allowance, details
-- Errors, in order: conflict; recovery_needed; stale <activation>; terms <plan, assigned (ms), its time zone, now (ms),
--   windows>; frozen <why>; not_member <member>; again; cap <id, scope, window, limit, used, held, end (ms), needed>;
--   insufficient <needed, balance, held, floor, next expiry (ms), allowance, its end (ms)>; journal_full <limit>

local amount_text, amount, floor = ARGV[2], tonumber(ARGV[2]), tonumber(ARGV[3])
local version, activation = ARGV[4], tonumber(ARGV[5])
local operation_key, record_ms, fingerprint = ARGV[6], ARGV[7], ARGV[8]
local journal_limit, cause, conditions_text = tonumber(ARGV[9]), ARGV[10], ARGV[11]

-- include lib/once
-- include lib/funds

-- Charges an account that has more than a balance and leases. Returns the part that the allowance paid and the details;
-- or nil, nil, and the refusal.
local function charge()
  -- include lib/opening
  -- include lib/admission
  -- include lib/low_balance
  local conditions = parse_conditions(conditions_text)
  begin(account, conditions)
  local scope_amounts = amounts_by_scope(amount, conditions.member, conditions.models)
  local refusal = refuse(account, conditions, scope_amounts, amount, floor, activation)
  if refusal then
    return nil, nil, refusal
  end
  local before, allowance = account.balance, from_allowance(account, conditions, amount)
  spend_allowance(account, allowance)
  spend_balance(account, amount - allowance, false)
  count_charge(account, scope_amounts)
  count_spent(account, conditions.member, amount)
  note_plan(account, account.plan.id)
  fire_low_levels(account, conditions.low_levels, before)
  save_scopes(account)
  return allowance, take_details(account)
end

local allowance, details, refusal = 0, '', nil
if is_plain(account, conditions_text) then
  refusal = stale(account, activation) or short_of(account, amount, floor, 0)
  account.balance = account.balance - amount
else
  allowance, details, refusal = charge()
end
if refusal then
  return refusal
end
-- include lib/admit

account.activation = math.max(account.activation, activation)
local entry_id = commit(account, {
  operation = 'deduct', key = operation_key, amount = amount, balance_change = allowance - amount, version = version,
  cause = cause, details = details,
})
return answer_once(account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) .. '\t' ..
  integer(account.held) .. '\t' .. amount_text .. '\t' .. integer(allowance) .. '\t' .. details)
