-- include lib/lease
-- include lib/parents

--   KEYS[7] closed lease
local closed_lease = KEYS[7]

-- The open lease of an id; or nil and the refusal.
local function open_lease(account, lease_id)
  local lease = find_lease(account, lease_id)
  if not lease then
    local closed = redis.call('GET', closed_lease)
    return nil, closed and 'closed\t' .. string.match(closed, '^[^\t]*') or 'not_found'
  end
  if lease.state ~= 'open' then
    return nil, 'expired'
  end
  return lease
end
