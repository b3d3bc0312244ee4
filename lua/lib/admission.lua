-- include lib/lease

-- What stands before every reserve, deduct and extend, and the words of the refusals.

-- The account keeps the highest activation of a pricing document that any call carried: a call that was priced under an
-- older one is told to price again. '0' is a call that nothing was priced for.
local function stale(account, activation)
  if activation ~= 0 and activation < account.activation then
    return 'stale\t' .. integer(account.activation)
  end
end

-- Adds the raised activation, if it is one, to the fields that change.
local function raise_activation(account, activation, fields)
  if activation > account.activation then
    fields[#fields + 1] = 'activation'
    fields[#fields + 1] = integer(activation)
  end
end

-- When the first open lease expires, as text, empty where none is open. Of an account with very many leases it is the
-- time before which none expires: a refusal must stay cheap.
local LEASES_LOOKED_AT = 256

local function next_expiry(account)
  if account.held == 0 then
    return ''
  end
  if redis.call('HLEN', KEYS[2]) > LEASES_LOOKED_AT then
    return integer(account.due)
  end
  local first
  for _, record in ipairs(redis.call('HVALS', KEYS[2])) do
    local lease = parse_lease(record)
    if lease.state == 'open' and (not first or lease.expires < first) then
      first = lease.expires
    end
  end
  return first and integer(first) or ''
end

-- Refuses what would take the available credits below the floor.
local function short_of(account, amount, floor)
  if account.balance - account.held - amount < floor then
    return 'insufficient\t' .. integer(amount) .. '\t' .. integer(account.balance) .. '\t' .. integer(account.held) ..
      '\t' .. integer(floor) .. '\t' .. next_expiry(account)
  end
end

-- Refuses new work while the journal (KEYS[3]) waits for its consumers.
local function journal_full(limit)
  if redis.call('XLEN', KEYS[3]) >= limit then
    return 'journal_full\t' .. integer(limit)
  end
end
