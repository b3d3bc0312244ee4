-- include lib/integer

-- The account's hot state, read once and written once per operation.
--   KEYS[1] account hash: epoch, seq, balance, held, due (when the first thing of it falls due), activation (the
--           highest activation of a pricing document that it was charged under); a number that is missing is 0. extras
--           marks an extended account, see lib/extended.
--   KEYS[2] the account's leases, see lib/lease
--   KEYS[3] journal of the partition
--   KEYS[4] due: sorted set of the partition's accounts by the time at which something of theirs falls due
--   KEYS[5] meta of the partition
--   ARGV[1] account id
-- All scripts of an account are called with these, so pieces read them by position: as names they would be upvalues of
-- all functions, which costs each run some 5 % of its time.

-- The most values of one call to the server: Lua's stack ends at 8,000. Even, for pairs stay together.
local ITEMS_A_CALL = 4000

-- Reads the account. Returns nil where it is missing and the partition's memory is gone: an account that is missing is
-- a new one only as long as the namespace's own record is there.
local function load_account()
  local raw = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'balance', 'held', 'due', 'activation', 'extras')
  if raw[1] then
    local balance, held = tonumber(raw[3]) or 0, tonumber(raw[4]) or 0
    local due, activation = tonumber(raw[5]), tonumber(raw[6]) or 0
    return {
      epoch = raw[1], seq = tonumber(raw[2]), balance = balance, held = held, due = due, activation = activation,
      stored_balance = balance, stored_held = held, stored_due = due, stored_activation = activation, extended = raw[7],
    }
  end
  local meta = redis.call('HMGET', KEYS[5], 'state', 'epoch')
  if meta[1] ~= 'open' then
    return nil
  end
  return {
    epoch = meta[2], seq = 0, balance = 0, held = 0, activation = 0, stored_balance = 0, stored_held = 0,
    stored_activation = 0, created = true,
  }
end

-- The seq of the change that is being made. The opening of a new account comes before it, with an entry of its own.
local function next_seq(account)
  return account.seq + (account.opening and 2 or 1)
end

-- A field that the next commit writes. One of many of its kind, named with a /, is removed by ''.
local function set_field(account, name, text)
  local fields = account.fields
  if not fields then
    fields = {}
    account.fields = fields
  end
  fields[#fields + 1] = name
  fields[#fields + 1] = text
end

-- A field that only extended accounts have.
local function set_extended(account, name, text)
  if not account.extended then
    account.extended = '1'
    set_field(account, 'extras', '1')
  end
  set_field(account, name, text)
end

-- All that changed since the last commit, as pairs of name and text.
local function changed_fields(account)
  local fields = account.fields or {}
  account.fields = nil
  if account.balance ~= account.stored_balance then
    fields[#fields + 1] = 'balance'
    fields[#fields + 1] = integer(account.balance)
    account.stored_balance = account.balance
  end
  if account.held ~= account.stored_held then
    fields[#fields + 1] = 'held'
    fields[#fields + 1] = integer(account.held)
    account.stored_held = account.held
  end
  if account.due ~= account.stored_due then
    fields[#fields + 1] = 'due'
    fields[#fields + 1] = account.due and integer(account.due) or ''
    account.stored_due = account.due
    account.due_changed = true
  end
  if account.activation ~= account.stored_activation then
    fields[#fields + 1] = 'activation'
    fields[#fields + 1] = integer(account.activation)
    account.stored_activation = account.activation
  end
  return fields
end

local function append(account, entry, fields)
  account.seq = account.seq + 1
  local seq = integer(account.seq)
  local amount, change = entry.amount or 0, entry.balance_change or 0
  -- Most charges take their whole amount from the balance: the change is then left out.
  local text = entry.operation .. '\t' .. ARGV[1] .. '\t' .. account.epoch .. '\t' .. seq .. '\t' .. entry.key ..
    '\t' .. integer(amount) .. '\t' .. (change == -amount and '' or integer(change)) .. '\t' ..
    integer(entry.shortfall or 0) .. '\t' .. (entry.version or '0') .. '\t' .. (entry.cause or '') .. '\t' ..
    (entry.details or '')
  if fields[1] then
    text = text .. '\t' .. table.concat(fields, '\t')
  end
  local lease_id, lease = entry.lease_id, entry.lease
  if lease_id then
    text = text .. '\tlease/' .. lease_id .. '\t' .. lease
  end
  local parents = entry.parents
  if parents then
    for _, parent in ipairs(parents) do
      text = text .. '\tlease/' .. parent.id .. '\t' .. parent.record
    end
  end
  local entry_id = redis.call('XADD', KEYS[3], '*', 'entry', text)
  local last = math.min(#fields, ITEMS_A_CALL)
  if account.created then
    account.created = false
    redis.call('HSET', KEYS[1], 'epoch', account.epoch, 'seq', seq, unpack(fields, 1, last))
  else
    redis.call('HSET', KEYS[1], 'seq', seq, unpack(fields, 1, last))
  end
  while last < #fields do
    local first = last + 1
    last = math.min(#fields, last + ITEMS_A_CALL)
    redis.call('HSET', KEYS[1], unpack(fields, first, last))
  end
  for index = 1, #fields, 2 do
    if fields[index + 1] == '' and string.find(fields[index], '/', 1, true) then
      redis.call('HDEL', KEYS[1], fields[index])
    end
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
  if parents then
    for _, parent in ipairs(parents) do
      redis.call('HSET', KEYS[2], parent.id, parent.record)
    end
  end
  if account.due_changed then
    account.due_changed = false
    if account.due then
      redis.call('ZADD', KEYS[4], integer(account.due), ARGV[1])
    else
      redis.call('ZREM', KEYS[4], ARGV[1])
    end
  end
  return entry_id
end

-- Writes one change: its journal entry, then the account's fields that changed, then at most one lease and those around
-- it that changed, see lib/parents.
--   entry  operation, key (the operation key), amount, balance_change, shortfall, version, cause, details;
--          lease_id, lease: the lease that changes and its new record; '' removes it. A record that ends in '*' gets
--          the id of this entry in its place, here and wherever the journal is read.
-- XADD comes first: a server may refuse it, and nothing is written before it. A new account that opens with credits or
-- a plan has an entry for that before. Returns the entry's id.
local function commit(account, entry)
  local fields = changed_fields(account)
  if account.parents then
    entry.parents, account.parents = account.parents, nil
  end
  if account.read_only then
    return '0-0'
  end
  local opening = account.opening
  if opening then
    account.opening = nil
    append(account, opening, opening.fields)
  end
  return append(account, entry, fields)
end
