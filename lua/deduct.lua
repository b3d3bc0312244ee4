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
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount
-- Errors, in order: conflict; recovery_needed; stale <activation>; again;
--   insufficient <needed> <balance> <held> <floor> <next expiry, ms>; journal_full <limit>

-- include lib/due
-- include lib/admission
-- include lib/operation_record

local amount, floor, activation = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local fingerprint = ARGV[8]

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = load_account()
if not account then
  return 'recovery_needed'
end
local more_is_due = false
if account.due then
  local time = now()
  if account.due <= time then
    apply_due(account, time)
    more_is_due = account.due and account.due <= time
  end
end
local refused = stale(account, activation)
if refused then
  return refused
end
refused = short_of(account, amount, floor)
if refused then
  return more_is_due and 'again' or refused
end
refused = journal_full(tonumber(ARGV[9]))
if refused then
  return refused
end

account.balance = account.balance - amount
local balance = integer(account.balance)
local fields = {'balance', balance}
raise_activation(account, activation, fields)
local entry_id = commit(account, 'deduct', ARGV[6], amount, -amount, 0, ARGV[4], ARGV[10], fields)
return answer_and_remember(fingerprint, ARGV[7],
  account.epoch .. '\t' .. entry_id .. '\t' .. balance .. '\t' .. integer(account.held) .. '\t' .. ARGV[2])
