-- include lib/details
-- include lib/extended
-- include lib/pool
-- include lib/split

-- Grants: credits that came in together and are told apart, for they expire or have a priority of their own. All others
-- are the pool: what the balance is above the grants, below zero where the account is in debt.
--   grants     field: numbers of the live grants in spending order, separated by spaces
--   grant/<n>  field: remaining, expires (milliseconds, 0 never), priority, type, amount, added; separated by \31
-- Spending order: lower priority number first, then soonest expiry, then oldest. The pool stands at POOL_PRIORITY and
-- never expires. A grant that has expired while leases rest on it pays for nothing but leases.
local GRANTS_AN_ACCOUNT = 256
local GRANT = '^(%d+)\31(%d+)\31(%d+)\31([^\31]*)\31(%d+)\31(%d+)$'

local function load_grants(account)
  local grants = account.grants
  if grants then
    return grants
  end
  grants = {}
  account.grants = grants
  if account.grants_text ~= '' then
    local numbers, names = split(account.grants_text, ' '), {}
    for index, number in ipairs(numbers) do
      names[index] = 'grant/' .. number
    end
    for index, record in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
      local remaining, expires, priority, type, amount, added = string.match(record, GRANT)
      grants[index] = {
        number = numbers[index], remaining = tonumber(remaining), expires = tonumber(expires),
        priority = tonumber(priority), type = type, amount = tonumber(amount), added = added,
      }
    end
  end
  return grants
end

local function format_grant(grant)
  return integer(grant.remaining) .. '\31' .. integer(grant.expires) .. '\31' .. integer(grant.priority) .. '\31' ..
    grant.type .. '\31' .. integer(grant.amount) .. '\31' .. grant.added
end

local function has_expired(grant, time)
  return grant.expires ~= 0 and grant.expires <= time
end

local function spent_before(a, b)
  if a.priority ~= b.priority then
    return a.priority < b.priority
  end
  local a_expires, b_expires = a.expires == 0 and math.huge or a.expires, b.expires == 0 and math.huge or b.expires
  if a_expires ~= b_expires then
    return a_expires < b_expires
  end
  return tonumber(a.number) < tonumber(b.number)
end

local function change_grant(grant, amount)
  grant.remaining = grant.remaining + amount
  grant.changed = true
end

local function insert_grant(account, grant)
  local grants = account.grants
  local place = #grants + 1
  while place > 1 and spent_before(grant, grants[place - 1]) do
    place = place - 1
  end
  grant.changed = true
  table.insert(grants, place, grant)
end

-- Writes the grants that changed. One that is used up is no more.
local function save_grants(account)
  local grants, live, numbers = account.grants, {}, {}
  if not grants then
    return
  end
  for _, grant in ipairs(grants) do
    if grant.changed then
      grant.changed = false
      set_extended(account, 'grant/' .. grant.number, grant.remaining == 0 and '' or format_grant(grant))
    end
    if grant.remaining > 0 then
      live[#live + 1] = grant
      numbers[#numbers + 1] = grant.number
    end
  end
  account.grants = live
  local text = table.concat(numbers, ' ')
  if text ~= account.grants_text then
    account.grants_text = text
    set_extended(account, 'grants', text)
  end
end

local function in_grants(account)
  local sum = 0
  for _, grant in ipairs(load_grants(account)) do
    sum = sum + grant.remaining
  end
  return sum
end

local function note_grant(account, grant, part)
  note(account, 'grant/' .. grant.number, integer(part) .. ' ' .. integer(grant.expires) .. ' ' ..
    integer(grant.priority) .. ' ' .. grant.type)
end

local function by_expiry(a, b)
  if a.expires ~= b.expires then
    return a.expires < b.expires
  end
  return tonumber(a.number) < tonumber(b.number)
end

local function expired_grants(account)
  local expired = {}
  for _, grant in ipairs(load_grants(account)) do
    if has_expired(grant, account.time) then
      expired[#expired + 1] = grant
    end
  end
  table.sort(expired, by_expiry)
  return expired
end

-- Takes from the balance, in spending order; what the grants paid is noted. Only a lease's spending reaches what has
-- expired under it.
local function spend_balance(account, amount, for_lease)
  if amount == 0 or account.grants_text == '' then
    account.balance = account.balance - amount
    return
  end
  local pool, left = account.balance - in_grants(account), amount
  local function take(grant)
    local part = math.min(left, grant.remaining)
    if part > 0 then
      left = left - part
      change_grant(grant, -part)
      note_grant(account, grant, part)
    end
  end
  if for_lease then
    for _, grant in ipairs(expired_grants(account)) do
      take(grant)
    end
  end
  local pool_came = false
  for _, grant in ipairs(account.grants) do
    if grant.priority > POOL_PRIORITY and not pool_came then
      pool_came = true
      left = left - math.max(0, math.min(left, pool))
    end
    if not has_expired(grant, account.time) then
      take(grant)
    end
  end
  account.balance = account.balance - amount
  save_grants(account)
end

-- Credits come in as a grant of their own. A debt of the pool is paid from them first.
local function add_grant(account, amount, type, expires, priority)
  local pool = account.balance - in_grants(account)
  local remaining = amount - math.min(amount, math.max(0, -pool))
  account.balance = account.balance + amount
  if remaining > 0 then
    insert_grant(account, {
      number = integer(next_seq(account)), remaining = remaining, expires = expires, priority = priority, type = type,
      amount = amount, added = integer(account.time),
    })
    save_grants(account)
  end
end

-- The account falls due when the first of its grants expires.
local function await_grants(account)
  for _, grant in ipairs(load_grants(account)) do
    if grant.expires > account.time and (not account.due or grant.expires < account.due) then
      account.due = grant.expires
    end
  end
end

-- The part of a grant that expires goes from the balance, with an entry of its own.
local function expire_part(account, grant, part, key)
  change_grant(grant, -part)
  account.balance = account.balance - part
  save_grants(account)
  note_grant(account, grant, part)
  commit(account, {
    operation = 'expire_grant', key = key, amount = part, balance_change = -part, details = take_details(account),
  })
end

-- After a lease closed: what no lease rests on any more of the grants that expired under leases goes too. Returns how
-- much.
local function expire_unheld_grants(account)
  if account.grants_text == '' then
    return 0
  end
  local expired, excess, gone = expired_grants(account), -math.max(0, account.held), 0
  for _, grant in ipairs(expired) do
    excess = excess + grant.remaining
  end
  for _, grant in ipairs(expired) do
    local part = math.min(excess, grant.remaining)
    if part > 0 then
      excess, gone = excess - part, gone + part
      expire_part(account, grant, part, 'grant/' .. grant.number .. '/expire/' .. integer(account.seq + 1))
    end
  end
  return gone
end
