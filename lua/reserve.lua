#!lua
-- reserve: open a lease that holds credits while work runs. The lease id makes it safe to repeat. One that is opened
-- inside another takes its hold out of that one's, and has its floor, prices and, unless another is named, its member.
--
-- KEYS[1] account   KEYS[2] leases   KEYS[3] journal   KEYS[4] due   KEYS[5] meta   KEYS[6] closed lease
-- KEYS[7] closed lease of the parent's id, where a parent is named
-- ARGV[1] account id
-- ARGV[2] lease id
-- ARGV[3] amount to hold, micro-credits
-- ARGV[4] floor, micro-credits: how low the available credits may go
-- ARGV[5] version of the pricing document, 0 for none
-- ARGV[6] activation of that document, 0 for none; with a parent also where the price is that of the parent's version
-- ARGV[7] time to live, milliseconds
-- ARGV[8] what happens when it expires: release | charge
-- ARGV[9] fingerprint of the request
-- ARGV[10] operation type
-- ARGV[11] owner
-- ARGV[12] metadata, JSON or empty
-- ARGV[13] journal limit, entries
-- ARGV[14] cause, JSON
-- ARGV[15] conditions, see lib/conditions
-- ARGV[16] 1 to write nothing: the answer is what would be
--
-- Reply: ok | replayed, epoch, entry id, balance, held, amount, allowance, details, expires (ms), version
-- Errors, in order: recovery_needed; conflict; closed <settled | released | expired>; parent_closed <id, settled |
--   released>; parent_not_found <id>; parent_expired <id>; too_deep <limit>; reprice <version, plan of the parent>;
--   stale <activation>; terms <plan, assigned (ms), its time zone, now (ms), windows>; frozen <why>; not_member
--   <member>; concurrency <type> <limit> <running>; again; cap <id, scope, window, limit, used, held, end (ms),
--   needed>; budget <parent, needed, left, held inside it, next expiry (ms)>; insufficient <needed, balance, held,
--   floor, next expiry (ms), allowance, its end (ms)>; over_limit; journal_full <limit>

local leases_key = KEYS[2]
local lease_id, amount, floor = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local priced_under, activation = ARGV[5], tonumber(ARGV[6])
local lives_ms, on_expiry, fingerprint = tonumber(ARGV[7]), ARGV[8], ARGV[9]
local operation_type, owner, metadata = ARGV[10], ARGV[11], ARGV[12]
local journal_limit, cause, conditions_text, dry_run = tonumber(ARGV[13]), ARGV[14], ARGV[15], ARGV[16] == '1'
local parent_closed_key = KEYS[7]

-- include lib/loaded
-- include lib/funds
-- include lib/lease
-- include lib/closed_lease

account.read_only = dry_run
local time, due, version = now(), account.due, priced_under

local function answer(status, entry_id, lease, details)
  return status .. '\t' .. account.epoch .. '\t' .. entry_id .. '\t' .. integer(account.balance) .. '\t' ..
    integer(account.held) .. '\t' .. integer(lease.amount) .. '\t' .. integer(lease.terms.allowance) .. '\t' ..
    details .. '\t' .. integer(lease.expires) .. '\t' .. lease.version
end

-- The answer for a lease of that id that was opened before, or nil.
local function earlier_lease()
  local record = redis.call('HGET', leases_key, lease_id)
  local lease = record and parse_lease(record)
  -- A dry run wrote nothing of what has fallen due: an expired lease that is due to be forgotten is still there.
  local forgotten = lease and account.read_only and due and due <= time and lease.state ~= 'open' and
    lease_due(lease) <= time
  if lease and not forgotten then
    if lease.fingerprint ~= fingerprint then
      return 'conflict'
    end
    if lease.state ~= 'open' or lease.expires <= time then
      return 'closed\texpired'
    end
    return answer('replayed', string.match(record, '([^\31]*)$'), lease, '')
  end
  local how = read_closed_lease()
  return how and 'closed\t' .. how
end

-- Takes the hold of an account that has more than a balance and leases. Returns the lease's terms and the details; or
-- nil, nil, and the refusal.
local function hold()
  -- include lib/opening
  -- include lib/admission
  local conditions = parse_conditions(conditions_text)
  begin(account, conditions, lease_id)
  local parent, refusal = nil, earlier_lease()
  if not refusal and conditions.parent then
    parent, refusal = parent_to_be(account, conditions.parent, parent_closed_key)
  end
  if refusal then
    return nil, nil, refusal
  end
  local its = parent and parent.lease
  if its then
    -- At the parent's prices, where it was promised any: its plan is what a call that was told of them names.
    if not priced_alike(its, version, activation == 0 and its.terms.plan or conditions.plan) then
      return nil, nil, 'reprice\t' .. its.version .. '\t' .. its.terms.plan
    end
    floor = its.floor
    version = version ~= '0' and version or its.version
    conditions.member = conditions.member ~= '' and conditions.member or its.terms.member
  end
  local scope_amounts = amounts_by_scope(amount, conditions.member, conditions.models)
  refusal = refuse(account, conditions, scope_amounts, amount, floor, activation, operation_type, parent)
  if refusal then
    return nil, nil, refusal
  end
  if not parent and account.held + amount > MAX_MICRO then
    return nil, nil, account.more_is_due and 'again' or 'over_limit'
  end
  local terms = {
    plan = account.plan.id, member = conditions.member, paid = '',
    models = account.extended and format_models(conditions.models) or '',
  }
  if its then
    terms.parents = parent.id .. '\29' .. its.created .. (its.terms.parents and '\29' .. its.terms.parents or '')
    terms.allowance, terms.caps, terms.inherited =
      hold_inside(account, parent, scope_amounts, amount, conditions.skip_allowance, '', '')
    terms.period = terms.allowance > 0 and its.terms.period or 0
    terms.plan = its.version ~= '0' and its.terms.plan or terms.plan
  else
    terms.allowance = from_allowance(account, conditions, amount)
    take_hold(account, amount, terms.allowance)
    terms.period = terms.allowance > 0 and account.period.number or 0
    terms.caps = count_hold(account, scope_amounts, '')
  end
  save_scopes(account)
  return terms, take_details(account)
end

local terms, details, refusal = NO_LEASE_TERMS, '', nil
if is_plain(account, conditions_text, time) then
  refusal = earlier_lease() or stale(account, activation) or short_of(account, amount, floor, 0) or
    (account.held + amount > MAX_MICRO and 'over_limit')
  account.held = account.held + amount
else
  terms, details, refusal = hold()
end
if refusal then
  return refusal
end
-- include lib/admit

local lease = {
  state = 'open', amount = amount, charged = 0, created = integer(time), expires = time + lives_ms, floor = floor,
  version = version, on_expiry = on_expiry, fingerprint = fingerprint, terms = terms,
  rest = operation_type .. '\31' .. owner .. '\31' .. metadata .. '\31*',
}
account.due = math.min(account.due or lease.expires, lease.expires)
account.activation = math.max(account.activation, activation)
local entry_id = commit(account, {
  operation = 'reserve', key = 'lease/' .. lease_id .. '/reserve', amount = amount, version = priced_under,
  cause = cause, details = details, lease_id = lease_id, lease = format_lease(lease),
})
return answer('ok', entry_id, lease, details)
