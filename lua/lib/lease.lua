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
--   operation type, owner, metadata
--   entry       id of the journal entry that opened it
local LEASE = '^(%a+)\31(%d+)\31(%d+)\31(%d+)\31(%d+)\31(%-?%d+)\31(%d+)\31(%a+)\31([^\31]*)\31(.*)$'

local function parse_lease(record)
  local state, amount, charged, created, expires, floor, version, on_expiry, fingerprint, rest = string.match(record, LEASE)
  return {
    state = state, amount = tonumber(amount), charged = tonumber(charged), created = created, expires = tonumber(expires),
    floor = tonumber(floor), version = version, on_expiry = on_expiry, fingerprint = fingerprint, rest = rest,
  }
end

local function format_lease(lease)
  return lease.state .. '\31' .. integer(lease.amount) .. '\31' .. integer(lease.charged) .. '\31' .. lease.created ..
    '\31' .. integer(lease.expires) .. '\31' .. integer(lease.floor) .. '\31' .. lease.version .. '\31' ..
    lease.on_expiry .. '\31' .. lease.fingerprint .. '\31' .. lease.rest
end

-- Milliseconds that a closed lease is remembered.
local CLOSED_LEASE_KEPT = 86400000

-- When something happens to the lease by itself: an open one expires, an expired one is forgotten.
local function lease_due(lease)
  if lease.state == 'open' then
    return lease.expires
  end
  return lease.expires + CLOSED_LEASE_KEPT
end
