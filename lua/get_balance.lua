#!lua flags=no-writes
-- get_balance: what an account has. What has fallen due is counted, and nothing is written.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta
-- ARGV[1] account id
-- ARGV[2] conditions, see lib/conditions
--
-- Reply: ok, balance, held, seq, allowance left
-- Errors, in order: recovery_needed; stale <activation>; terms <plan, assigned (ms), its time zone, now (ms), windows>

local conditions_text = ARGV[2]

-- include lib/loaded
-- include lib/funds

account.read_only = true

-- Applies what has fallen due, in memory, and the plan's terms. Returns what is left of the allowance; or nil and the
-- refusal.
local function allowance_now()
  -- include lib/opening
  -- include lib/plan_caps
  local conditions = parse_conditions(conditions_text)
  begin(account, conditions)
  local refusal = apply_plan_terms(account, conditions)
  return allowance_left(account), refusal
end

local allowance, refusal = 0, nil
if not is_plain(account, conditions_text) then
  allowance, refusal = allowance_now()
end
if refusal then
  return refusal
end
return 'ok\t' .. integer(account.balance) .. '\t' .. integer(account.held) .. '\t' .. integer(account.seq) .. '\t' ..
  integer(allowance)
