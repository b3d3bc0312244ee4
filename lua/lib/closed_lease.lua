-- include lib/lease

-- KEYS[6] closed lease: how it was closed ('settled', 'released'), the fingerprint of the request, its answer.
local closed_lease = KEYS[6]

local function read_closed_lease()
  local record = redis.call('GET', closed_lease)
  if record then
    return string.match(record, '^([^\t]*)\t([^\t]*)\t(.*)$')
  end
end

local function answer_and_close(how, fingerprint, answer)
  redis.call('SET', closed_lease, how .. '\t' .. fingerprint .. '\t' .. answer, 'PX', integer(CLOSED_LEASE_KEPT))
  return 'ok\t' .. answer
end
