-- include lib/credit_model

-- The open lease of that id; or nil and the reply that says why there is none.
--   KEYS[7] closed lease
local function open_lease(account, lease_id)
  local lease = find_lease(account, lease_id)
  if not lease then
    local closed = redis.call('GET', KEYS[7])
    return nil, closed and 'closed\t' .. string.match(closed, '^[^\t]*') or 'not_found'
  end
  if lease.state ~= 'open' then
    return nil, 'expired'
  end
  return lease
end
