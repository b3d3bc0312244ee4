#!lua
-- extend: let a lease hold more, under the floor that it was admitted under.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] operation record
-- KEYS[7] closed lease
-- ARGV[1] account id
-- ARGV[2] lease id
-- ARGV[3] amount to hold in addition, micro-credits
-- ARGV[4] version of the pricing document that it was priced under, 0 for none
-- ARGV[5] operation key
-- ARGV[6] milliseconds that the operation record is kept
-- ARGV[7] fingerprint of the request
-- ARGV[8] journal limit, entries
-- ARGV[9] cause, JSON
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount that the lease holds now
-- Errors, in order: conflict; recovery_needed; closed <settled | released>; not_found; expired;
--   reprice <version of the lease>; again; insufficient <needed> <balance> <held> <floor> <next expiry, ms>; over_limit;
--   journal_full <limit>

-- include lib/open_lease
-- include lib/admission
-- include lib/operation_record

local lease_id, amount, fingerprint = ARGV[2], tonumber(ARGV[3]), ARGV[7]

local earlier = earlier_answer(fingerprint)
if earlier then
  return earlier
end
local account = load_account()
if not account then
  return 'recovery_needed'
end
local lease, refused, time = open_lease(account, lease_id)
if not lease then
  return refused
end
if ARGV[4] ~= '0' and lease.version ~= '0' and ARGV[4] ~= lease.version then
  return 'reprice\t' .. lease.version
end
refused = short_of(account, amount, lease.floor)
if refused then
  return account.due and account.due <= time and 'again' or refused
end
if account.held + amount > MAX_MICRO then
  return account.due and account.due <= time and 'again' or 'over_limit'
end
refused = journal_full(tonumber(ARGV[8]))
if refused then
  return refused
end

account.held = account.held + amount
lease.amount = lease.amount + amount
local held = integer(account.held)
local entry_id = commit(account, 'extend', ARGV[5], amount, 0, 0, ARGV[4], ARGV[9], {'held', held}, lease_id,
  format_lease(lease))
return answer_and_remember(fingerprint, ARGV[6], account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) ..
  '\t' .. held .. '\t' .. integer(lease.amount))
