-- include lib/account
-- include lib/allowance
-- include lib/plan

-- The fields of the account's hash that only some accounts have; nobody reads them for a plain one:
--   plan     see lib/plan
--   period   the allowance's running period, see lib/allowance
--   grants, grant/<number>   see lib/grants
--   caps, caps/member/<member>, caps/model/<model>   see lib/caps
--   team, member/<member>   see lib/members
--   frozen   who froze it and why, '' where it is not
--   low      low-balance levels that have fired, see lib/low_balance
local function load_extended(account)
  account.scopes = {}
  if not account.extended then
    account.plan, account.frozen, account.low, account.grants_text = NO_PLAN, '', '', ''
    return
  end
  local raw = redis.call('HMGET', KEYS[1], 'plan', 'period', 'grants', 'frozen', 'low', 'team')
  account.plan = parse_plan(raw[1] or '')
  account.period = parse_period(raw[2] or '')
  account.grants_text, account.frozen, account.low, account.team = raw[3] or '', raw[4] or '', raw[5] or '', raw[6]
end
