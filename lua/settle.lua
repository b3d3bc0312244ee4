#!lua flags=allow-oom
-- settle: close a lease and charge what the work cost, from its own hold and from what is available above its floor,
-- never from another lease's hold. The rest is the shortfall. An expired lease holds nothing, and is charged all the
-- same. A lease that is inside another is charged from its own hold and its parent's alone, see lib/parents.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] closed lease
-- ARGV[1] account id
-- ARGV[2] lease id
-- ARGV[3] actual cost, micro-credits
-- ARGV[4] version of the pricing document that it was priced under, 0 for none, -1 to ask for the lease's
-- ARGV[5] fingerprint of the request
-- ARGV[6] cause, JSON
-- ARGV[7] conditions, see lib/conditions: of them plan, models, low_levels and skip_allowance count
--
-- Reply: ok | replayed, epoch, entry id, balance, held, charged, allowance, details, shortfall, late (1: it had
--   expired)
-- Errors, in order: conflict; closed released; recovery_needed; not_found; reprice <version, plan of the lease>; again;
--   over_limit

local leases_key = KEYS[2]
local lease_id, cost, version = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local fingerprint, cause, conditions_text = ARGV[5], ARGV[6], ARGV[7]

-- include lib/funds
-- include lib/lease
-- include lib/closed_lease
-- include lib/details

local how, first_fingerprint, first_answer = read_closed_lease()
if how == 'released' then
  return 'closed\treleased'
elseif how then
  if first_fingerprint ~= fingerprint then
    return 'conflict'
  end
  return 'replayed\t' .. first_answer
end
-- include lib/loaded

local before, lease
local charged, allowance, details = 0, 0, ''

-- Settles a lease of an account that has more than a balance and leases, or one that has expired. Returns what is left
-- to do after the entry of the settle; or nil and the refusal.
local function pay()
  -- include lib/opening
  -- include lib/charge_inside
  -- include lib/low_balance
  local conditions = parse_conditions(conditions_text)
  begin(account, conditions, lease_id)
  lease = find_lease(account, lease_id)
  if not lease then
    return nil, 'not_found'
  end
  local terms = lease.terms
  if not priced_alike(lease, version, conditions.plan) then
    return nil, 'reprice\t' .. lease.version .. '\t' .. terms.plan
  end

  -- Its own pays first: its hold, or the charge of its expiry.
  local open = lease.state == 'open'
  local own = open and lease.amount or lease.charged
  local own_allowance = own > 0 and terms.allowance or 0
  local payable = terms.parents and math.min(cost, own + reach(account, lease)) or cost
  local left = conditions.skip_allowance and -own_allowance or allowance_left(account)
  local spendable = above_floor(account, lease.floor)
  -- Leases that have expired and were not applied yet still hold what could pay. Its own record must outlast the wait.
  if (own + left + spendable < cost or payable < cost) and account.more_is_due and lease_due(lease) > account.time then
    return nil, 'again'
  end

  before = account.balance
  local holder = holder_of(account, lease)
  if open then
    give_up_hold(account, lease)
  elseif lease.charged > 0 then
    return_charge(account, lease)
  end
  local from_balance, of_expired_holds = 0, 0
  if holder then
    local back, back_allowance = open and 0 or own, open and 0 or own_allowance
    allowance, from_balance, of_expired_holds =
      charge_holder(account, lease, holder, payable, back, back_allowance, conditions.skip_allowance)
  else
    if conditions.skip_allowance then
      allowance = 0
    elseif own_allowance > 0 and not of_this_period(account, lease) then
      allowance = math.min(payable, own_allowance)
      note_old_allowance(account, terms.period, allowance)
    else
      allowance = math.min(payable, math.max(own_allowance, allowance_left(account)))
      spend_allowance(account, allowance)
    end
    from_balance = math.min(payable - allowance, own - own_allowance + spendable)
    of_expired_holds = math.max(0, allowance + from_balance - (open and 0 or own))
  end
  change_expired_holds(account, lease, -of_expired_holds)
  charged = allowance + from_balance
  spend_balance(account, from_balance, true)
  -- In one step: in between, the balance may have been more than a double holds.
  account.balance = before + ((open and 0 or own - own_allowance) - from_balance)
  if account.balance > MAX_MICRO then
    return nil, 'over_limit'
  end

  local scope_amounts = amounts_by_scope(charged, terms.member, charged_models(lease, conditions.models, charged))
  load_scopes_of(account, scope_amounts)
  if holder then
    release_charged(account, holder, scope_amounts)
  end
  count_charge(account, scope_amounts)
  count_spent(account, terms.member, charged)
  note_plan(account, terms.plan)
  fire_low_levels(account, conditions.low_levels, before)
  save_scopes(account)
  details = take_details(account)
  return expire_unheld_grants
end

local finish, refusal
local record = not account.extended and conditions_text == '' and redis.call('HGET', leases_key, lease_id)
lease = record and parse_lease(record)
if lease and lease.state == 'open' and lease.terms == NO_LEASE_TERMS and is_plain(account, '') then
  if not priced_alike(lease, version, '') then
    return 'reprice\t' .. lease.version .. '\t'
  end
  charged = math.min(cost, lease.amount + above_floor(account, lease.floor))
  before = account.balance
  account.balance, account.held = before - charged, account.held - lease.amount
else
  finish, refusal = pay()
end
if refusal then
  return refusal
end

local late = lease.state == 'open' and '0' or '1'
if lease.operation_type ~= 'default' then
  details = joined(details, 'operation_type', lease.operation_type)
end
if late == '1' then
  details = joined(details, 'late', '1')
end
local entry_id = commit(account, {
  operation = 'settle', key = 'lease/' .. lease_id .. '/settle', amount = cost,
  balance_change = account.balance - before, shortfall = cost - charged, version = version, cause = cause,
  details = details, lease_id = lease_id, lease = '',
})
if finish then
  finish(account)
end
return answer_and_close('settled', fingerprint, account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) ..
  '\t' .. integer(account.held) .. '\t' .. integer(charged) .. '\t' .. integer(allowance) .. '\t' .. details .. '\t' ..
  integer(cost - charged) .. '\t' .. late)
