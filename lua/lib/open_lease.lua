-- include lib/due

-- The open lease of that id, and the time; or nil and the reply that says why there is none.
--   KEYS[7] closed lease
local function open_lease(account, lease_id)
  local time = now()
  if account.due and account.due <= time then
    apply_due(account, time, lease_id)
  end
  local record = redis.call('HGET', KEYS[2], lease_id)
  if not record then
    local closed = redis.call('GET', KEYS[7])
    return nil, closed and 'closed\t' .. string.match(closed, '^[^\t]*') or 'not_found'
  end
  local lease = parse_lease(record)
  if lease.state ~= 'open' then
    return nil, 'expired'
  end
  return lease, nil, time
end
