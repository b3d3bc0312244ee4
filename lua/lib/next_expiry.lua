-- include lib/lease

-- The expiry of the first open lease, as text, empty where none is open. Of an account with very many leases it is the
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
