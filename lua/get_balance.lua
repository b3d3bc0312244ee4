#!lua flags=no-writes
-- get_balance: what an account has. What has fallen due is counted, and nothing is written.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta
-- ARGV[1] account id
-- ARGV[2] conditions, see lib/conditions
--
-- Reply: ok, balance, held, seq, allowance left
-- Errors, in order: recovery_needed; stale <activation>; terms <plan, assigned (ms), its time zone, now (ms), windows>

-- include lib/funds

local account = load_account()
if not account then
  return 'recovery_needed'
end
account.read_only = true

-- What only some accounts have, and what has fallen due, is taken in. Returns a refusal, or nil and what is left of the
-- allowance.
local function bring_up()
  -- include lib/credit_model
  local conditions = parse_conditions(ARGV[2])
  begin(account, conditions)
  return apply_plan_terms(account, conditions), allowance_left(account)
end

local refused, allowance = nil, 0
if not is_plain(account, ARGV[2]) then
  refused, allowance = bring_up()
end
if refused then
  return refused
end
return 'ok\t' .. integer(account.balance) .. '\t' .. integer(account.held) .. '\t' .. integer(account.seq) .. '\t' ..
  integer(allowance)
