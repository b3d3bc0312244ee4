#!lua
-- refund: give a charge back, all that is left of it or a part, to where it came from.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] transaction id of the charge
-- ARGV[3] micro-credits that it charged, whoever paid
-- ARGV[4] details of its journal entry
-- ARGV[5] when it was, milliseconds
-- ARGV[6] amount to give back, micro-credits, '' for all that is left
-- ARGV[7] 1 where what came from a grant that has expired goes to the balance, 0 for nowhere
-- ARGV[8] operation key
-- ARGV[9] milliseconds that the operation record is kept
-- ARGV[10] fingerprint of the request
-- ARGV[11] journal limit, entries
-- ARGV[12] cause, JSON
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount, to the allowance, lost, refunded of the charge in all
-- Errors, in order: conflict; recovery_needed; refund_exceeds <charged> <refunded>; journal_full <limit>; again;
--   over_limit

local account_key = KEYS[1]
local transaction_id, charged, charge_details, charged_at = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local asked, expired_to_balance = tonumber(ARGV[6]), ARGV[7] == '1'
local operation_key, record_ms, fingerprint = ARGV[8], ARGV[9], ARGV[10]
local journal_limit, cause = tonumber(ARGV[11]), ARGV[12]

-- include lib/once
-- include lib/opening
-- include lib/low_balance

begin(account, NO_CONDITIONS)
account.time = account.time or now()
local field = 'refunded/' .. transaction_id
local refunded = tonumber(redis.call('HGET', account_key, field) or '0')
local amount = asked or charged - refunded
if amount <= 0 or refunded + amount > charged then
  return 'refund_exceeds\t' .. integer(charged) .. '\t' .. integer(refunded)
end
-- include lib/admit

note(account, 'refund_of', transaction_id)
local sources, before = parse_sources(charge_details, '\31'), account.balance
local to_balance, to_allowance, lost = give_back(account, sources, charged, refunded, amount, expired_to_balance)
if account.balance > MAX_MICRO then
  return account.more_is_due and 'again' or 'over_limit'
end
if lost > 0 then
  note(account, 'lost', integer(lost))
end
uncount(account, sources, charged, refunded, amount, charged_at)
count_spent(account, sources.member, -amount)
await_grants(account)
arm_low_levels(account)
save_scopes(account)
set_field(account, field, integer(refunded + amount))
local entry_id = commit(account, {
  operation = 'refund', key = operation_key, amount = amount, balance_change = account.balance - before, cause = cause,
  details = take_details(account),
})
return answer_once(account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) .. '\t' ..
  integer(account.held) .. '\t' .. integer(amount) .. '\t' .. integer(to_allowance) .. '\t' ..
  integer(lost) .. '\t' .. integer(refunded + amount))
