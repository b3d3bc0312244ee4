-- include lib/next_expiry
-- include lib/parents

-- The hold of open leases inside a parent, micro-credits, and the first expiry among them, as text. Of an account with
-- very many leases only the time before which none of all expires: a refusal must stay cheap.
local function held_inside(account, parent)
  if redis.call('HLEN', KEYS[2]) > LEASES_LOOKED_AT then
    return '0\t' .. integer(account.due)
  end
  local held, first, flat, leases = 0, nil, redis.call('HGETALL', KEYS[2]), account.leases or {}
  account.leases = leases
  for index = 1, #flat, 2 do
    local id = flat[index]
    if leases[id] == nil then
      leases[id] = parse_lease(flat[index + 1])
    end
    local lease = leases[id]
    if lease and lease.state == 'open' and lease.terms.parents then
      for _, each in ipairs(parents_of(account, lease)) do
        if each.lease == parent.lease then
          held = held + lease.amount
          first = math.min(first or lease.expires, lease.expires)
        end
      end
    end
  end
  return integer(held) .. '\t' .. (first and integer(first) or '')
end
