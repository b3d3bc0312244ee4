-- include lib/integer

-- The account's hot state, read once and written once per operation.
--   KEYS[1] account hash: epoch, seq, balance, held, due (when the first of its leases falls due), activation (the
--           highest activation of a pricing document that it was charged under); a number that is missing is 0
--   KEYS[2] the account's leases, see lib/lease
--   KEYS[3] journal of the partition
--   KEYS[5] meta of the partition
--   ARGV[1] account id

-- Returns nil where the account is missing and the partition's memory is gone: an account that is missing is a new one
-- only as long as the namespace's own record is there.
local function load_account()
  local raw = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'balance', 'held', 'due', 'activation')
  if raw[1] then
    return {
      epoch = raw[1], seq = tonumber(raw[2]), balance = tonumber(raw[3]) or 0, held = tonumber(raw[4]) or 0,
      due = tonumber(raw[5]), activation = tonumber(raw[6]) or 0,
    }
  end
  local meta = redis.call('HMGET', KEYS[5], 'state', 'epoch')
  if meta[1] ~= 'open' then
    return nil
  end
  return {epoch = meta[2], seq = 0, balance = 0, held = 0, activation = 0, created = true}
end

-- One change: its journal entry, then the account's fields, then at most one lease.
--   fields  pairs name, text: everything of the account that changes, besides seq and epoch
--   lease_id, lease  the lease that changes and its new record; '' removes it. A record that ends in '*' gets the id of
--                    this entry in its place, here and wherever the journal is read.
-- XADD comes first: it is what a server may refuse, and nothing is written before it. Returns the entry's id.
local function commit(account, operation, operation_key, amount, balance_change, shortfall, version, cause, fields, lease_id, lease)
  account.seq = account.seq + 1
  local seq = integer(account.seq)
  local entry = operation .. '\t' .. ARGV[1] .. '\t' .. account.epoch .. '\t' .. seq .. '\t' .. operation_key .. '\t' ..
    integer(amount) .. '\t' .. integer(balance_change) .. '\t' .. integer(shortfall) .. '\t' .. version .. '\t' .. cause
  if fields[1] then
    entry = entry .. '\t' .. table.concat(fields, '\t')
  end
  if lease_id then
    entry = entry .. '\tlease/' .. lease_id .. '\t' .. lease
  end
  local entry_id = redis.call('XADD', KEYS[3], '*', 'entry', entry)
  if account.created then
    account.created = false
    redis.call('HSET', KEYS[1], 'epoch', account.epoch, 'seq', seq, unpack(fields))
  else
    redis.call('HSET', KEYS[1], 'seq', seq, unpack(fields))
  end
  if lease_id then
    if lease == '' then
      redis.call('HDEL', KEYS[2], lease_id)
    else
      if string.sub(lease, -1) == '*' then
        lease = string.sub(lease, 1, -2) .. entry_id
      end
      redis.call('HSET', KEYS[2], lease_id, lease)
    end
  end
  return entry_id
end
