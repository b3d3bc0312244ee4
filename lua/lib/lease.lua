-- include lib/integer

-- A lease is one field of the account's lease hash (KEYS[2]), named by its id. Its record, separated by \31:
--   state       open | expired (kept for a late settle, see lib/due)
--   amount      micro-credits that it holds, or held until it expired
--   charged     micro-credits that were charged when it expired
--   created, expires   milliseconds
--   floor       how low the account's available credits may go for it
--   version     pricing document that it was priced under, 0 for none
--   on_expiry   release | charge
--   fingerprint of the request that opened it
--   terms     what it stands on besides the balance, '' for a lease of a plain account; separated by \30:
--     allowance, period   the part of its amount that rests on the allowance, and the number of that period
--     plan        that it was priced under
--     member      who holds it, of a team
--     models      each model's part of it: model, \29, amount, \29, ...
--     caps        what is held of it in spend caps: scope, \29, cap id, \29, amount, \29, ...
--     paid        what its expiry charged, and from where: the details of that entry, with \29 between
--     and of a lease that is inside others, see lib/parents:
--     parents     those leases, the nearest first: id, \29, when it was created, \29, ...
--     inherited   what the parent held in spend caps, and this one holds instead: as caps, which are held beside it
--   operation type, owner, metadata
--   entry       id of the journal entry that opened it
local LEASE =
  '^(%a+)\31(%d+)\31(%d+)\31(%d+)\31(%d+)\31(%-?%d+)\31(%d+)\31(%a+)\31([^\31]*)\31([^\31]*)\31(([^\31]*)\31.*)$'
local LEASE_TERMS = '^(%d+)\30(%d+)\30([^\30]*)\30([^\30]*)\30([^\30]*)\30([^\30]*)\30([^\30]*)(.*)$'
local NO_LEASE_TERMS = {allowance = 0, period = 0, plan = '', member = '', models = '', caps = '', paid = ''}

local function parse_lease_terms(text)
  if text == '' then
    return NO_LEASE_TERMS
  end
  local allowance, period, plan, member, models, caps, paid, inside = string.match(text, LEASE_TERMS)
  local terms = {
    allowance = tonumber(allowance), period = tonumber(period), plan = plan, member = member, models = models,
    caps = caps, paid = paid,
  }
  if inside ~= '' then
    terms.parents, terms.inherited = string.match(inside, '^\30([^\30]*)\30([^\30]*)$')
  end
  return terms
end

local function parse_lease(record)
  local state, amount, charged, created, expires, floor, version, on_expiry, fingerprint, terms, rest, operation_type =
    string.match(record, LEASE)
  return {
    state = state, amount = tonumber(amount), charged = tonumber(charged), created = created,
    expires = tonumber(expires), floor = tonumber(floor), version = version, on_expiry = on_expiry,
    fingerprint = fingerprint, terms = parse_lease_terms(terms), rest = rest, operation_type = operation_type,
  }
end

local function format_lease_terms(terms)
  if terms == NO_LEASE_TERMS or (terms.allowance == 0 and terms.plan == '' and terms.member == '' and
    terms.models == '' and terms.caps == '' and terms.paid == '' and not terms.parents) then
    return ''
  end
  return integer(terms.allowance) .. '\30' .. integer(terms.period) .. '\30' .. terms.plan .. '\30' .. terms.member ..
    '\30' .. terms.models .. '\30' .. terms.caps .. '\30' .. terms.paid ..
    (terms.parents and '\30' .. terms.parents .. '\30' .. terms.inherited or '')
end

local function format_lease(lease)
  return lease.state .. '\31' .. integer(lease.amount) .. '\31' .. integer(lease.charged) .. '\31' .. lease.created ..
    '\31' .. integer(lease.expires) .. '\31' .. integer(lease.floor) .. '\31' .. lease.version .. '\31' ..
    lease.on_expiry .. '\31' .. lease.fingerprint .. '\31' .. format_lease_terms(lease.terms) .. '\31' .. lease.rest
end

-- Milliseconds that a closed lease is remembered.
local CLOSED_LEASE_KEPT = 86400000

-- Tells whether the lease was promised a price of that version and plan; '-1' asks for its own.
local function priced_alike(lease, version, plan)
  if version == '-1' then
    return false
  end
  return version == '0' or lease.version == '0' or (version == lease.version and plan == lease.terms.plan)
end

-- The time at which something happens to the lease by itself: an open one expires, an expired one is forgotten.
local function lease_due(lease)
  if lease.state == 'open' then
    return lease.expires
  end
  return lease.expires + CLOSED_LEASE_KEPT
end
