#!lua
-- add_credits: credits come in.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- ARGV[1] account id
-- ARGV[2] amount, micro-credits, above zero
-- ARGV[3] operation key
-- ARGV[4] milliseconds that the operation record is kept
-- ARGV[5] fingerprint of the request
-- ARGV[6] journal limit, entries
-- ARGV[7] cause, JSON
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount
-- Errors, in order: conflict; recovery_needed; again; over_limit; journal_full <limit>

-- include lib/due
-- include lib/admission
-- include lib/operation_record

local amount, fingerprint = tonumber(ARGV[2]), ARGV[5]

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
if account.balance + amount > MAX_MICRO then
  return more_is_due and 'again' or 'over_limit'
end
local full = journal_full(tonumber(ARGV[6]))
if full then
  return full
end

account.balance = account.balance + amount
local balance = integer(account.balance)
local entry_id = commit(account, 'add_credits', ARGV[3], amount, amount, 0, '0', ARGV[7], {'balance', balance})
return answer_and_remember(fingerprint, ARGV[4],
  account.epoch .. '\t' .. entry_id .. '\t' .. balance .. '\t' .. integer(account.held) .. '\t' .. ARGV[2])
