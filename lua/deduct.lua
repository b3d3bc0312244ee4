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

-- include lib/funds
-- include lib/operation_record

local amount, floor, activation = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local journal_limit, fingerprint = tonumber(ARGV[9]), ARGV[8]

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = load_account()
if not account then
  return 'recovery_needed'
end

-- The charge of an account that has more than a balance and leases. Returns a refusal, or nil, the part that the allowance
-- paid, and the details.
local function charge()
  -- include lib/credit_model
  local conditions = parse_conditions(ARGV[11])
  begin(account, conditions)
  local scope_amounts = amounts_by_scope(amount, conditions.member, conditions.models)
  local refused = refuse(account, conditions, scope_amounts, amount, floor, activation) or journal_full(journal_limit)
  if refused then
    return refused
  end
  local before, allowance = account.balance, from_allowance(account, conditions, amount)
  spend_allowance(account, allowance)
  spend_balance(account, amount - allowance, false)
  count_charge(account, scope_amounts)
  count_spent(account, conditions.member, amount)
  note_plan(account, account.plan.id)
  fire_low_levels(account, conditions.low_levels, before)
  save_scopes(account)
  return nil, allowance, take_details(account)
end

local refused, allowance, details = nil, 0, ''
if is_plain(account, ARGV[11]) then
  refused = stale(account, activation) or short_of(account, amount, floor, 0) or journal_full(journal_limit)
  account.balance = account.balance - amount
else
  refused, allowance, details = charge()
end
if refused then
  return refused
end
account.activation = math.max(account.activation, activation)
local entry_id = commit(account, {
  operation = 'deduct', key = ARGV[6], amount = amount, balance_change = allowance - amount, version = ARGV[4],
  cause = ARGV[10], details = details,
})
return answer_and_remember(fingerprint, ARGV[7], account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) ..
  '\t' .. integer(account.held) .. '\t' .. ARGV[2] .. '\t' .. integer(allowance) .. '\t' .. details)
