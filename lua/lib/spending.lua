-- include lib/allowance
-- include lib/cap_counts
-- include lib/details
-- include lib/grants
-- include lib/holds
-- include lib/members

-- The sources that a charge is paid from and goes back to.

-- Takes from the allowance, and notes it.
local function spend_allowance(account, amount)
  if amount > 0 then
    local period = account.period
    period.used = period.used + amount
    save_period(account)
    note(account, 'allowance', integer(amount) .. ' ' .. integer(period.number))
  end
end

-- A lease pays from an allowance whose period is over: it had its part of it.
local function note_old_allowance(account, period, amount)
  if amount > 0 then
    note(account, 'allowance', integer(amount) .. ' ' .. integer(period))
  end
end

-- The parts of a charge that its details name: what the allowance paid, of which period, and what each grant paid, in
-- the order in which they did. The rest of it came from the pool.
local function parse_sources(details, separator)
  local items = split(details, separator)
  local sources = {allowance = 0, period = 0, grants = {}, caps = {}, member = '', at = 0}
  for index = 1, #items, 2 do
    local name, value = items[index], items[index + 1]
    local grant, cap = string.match(name, '^grant/(.*)$'), string.match(name, '^cap/(.*)$')
    if name == 'allowance' then
      local amount, period = string.match(value, '^(%d+) (%d+)$')
      sources.allowance, sources.period = tonumber(amount), tonumber(period)
    elseif grant then
      local amount, expires, priority, type = string.match(value, '^(%d+) (%d+) (%d+) (.*)$')
      sources.grants[#sources.grants + 1] = {
        number = grant, part = tonumber(amount), expires = tonumber(expires), priority = tonumber(priority),
        type = type,
      }
    elseif cap then
      local amount, scope = string.match(value, '^(%-?%d+) (.*)$')
      sources.caps[#sources.caps + 1] = {id = cap, amount = tonumber(amount), scope = scope}
    elseif name == 'member' then
      sources.member = value
    elseif name == 'at' then
      sources.at = tonumber(value)
    end
  end
  return sources
end

-- A part goes back to its grant, which comes back where it was used up.
local function give_back_to_grant(account, source, part)
  if part == 0 then
    return
  end
  note_grant(account, source, part)
  for _, grant in ipairs(load_grants(account)) do
    if grant.number == source.number then
      change_grant(grant, part)
      return
    end
  end
  insert_grant(account, {
    number = source.number, remaining = part, expires = source.expires, priority = source.priority, type = source.type,
    amount = part, added = integer(account.time),
  })
end

-- Gives a part of a charge back to where it came from: the pool first, then the grants, the last that paid first, then
-- the allowance. What has been given back before is passed over in that order. A debt of the pool is paid before a
-- grant grows.
--   charged     micro-credits of the whole charge
--   to_balance  whether what came from a grant that has expired goes to the pool, or nowhere
-- Returns what came to the balance, what came to the allowance, and what was lost.
local function give_back(account, sources, charged, passed_over, amount, to_balance)
  local to_pool, to_allowance, lost, restored = 0, 0, 0, 0
  local function part_of(given)
    local passed = math.min(passed_over, given)
    passed_over = passed_over - passed
    local part = math.min(amount, given - passed)
    amount = amount - part
    return part
  end
  local pool = charged - sources.allowance
  for _, source in ipairs(sources.grants) do
    pool = pool - source.part
  end
  to_pool = part_of(pool)
  local debt = math.max(0, in_grants(account) - account.balance - to_pool)
  for index = #sources.grants, 1, -1 do
    local source = sources.grants[index]
    local part = part_of(source.part)
    if part > 0 then
      if not has_expired(source, account.time) then
        local of_debt = math.min(part, debt)
        debt = debt - of_debt
        to_pool, part = to_pool + of_debt, part - of_debt
        give_back_to_grant(account, source, part)
        restored = restored + part
      elseif to_balance then
        to_pool = to_pool + part
      else
        lost = lost + part
      end
    end
  end
  local part = part_of(sources.allowance)
  if part > 0 then
    local period = account.period
    if period and period.number == sources.period and account.time < period.finish then
      to_allowance = math.min(part, period.used)
      period.used = period.used - to_allowance
      save_period(account)
      note(account, 'allowance', integer(to_allowance) .. ' ' .. integer(period.number))
    end
    lost = lost + part - to_allowance
  end
  account.balance = account.balance + to_pool + restored
  save_grants(account)
  return to_pool + restored, to_allowance, lost
end

-- The share of a part that goes with an amount of the whole; all refunds together take it all.
local function share_of(part, amount, whole)
  if part == whole or amount == whole then
    return math.min(part, amount)
  end
  -- Long division, a binary digit of the amount at a time: the product may be more than a double holds.
  local share, rest, digit = 0, 0, 2 ^ 53
  while digit >= 1 do
    share, rest = 2 * share, 2 * rest
    if rest >= whole then
      share, rest = share + 1, rest - whole
    end
    if amount >= digit then
      amount = amount - digit
      if rest >= whole - part then
        share, rest = share + 1, rest - (whole - part)
      else
        rest = rest + part
      end
    end
    digit = digit / 2
  end
  return share
end

-- A refund is taken off what the charge was counted as in spend caps, where they still count that time.
--   refunded  micro-credits of the charge that were given back before
local function uncount(account, sources, charged, refunded, amount, charged_at)
  for _, source in ipairs(sources.caps) do
    load_scopes(account, {source.scope})
    local cap = find_cap(account, source.scope, source.id)
    local share = share_of(source.amount, refunded + amount, charged) - share_of(source.amount, refunded, charged)
    if cap and share > 0 then
      if cap.rolling == '1' then
        uncount_bucket(cap, share, charged_at)
      elseif cap.window == 'total' or (cap.start <= charged_at and (cap.finish == 0 or charged_at < cap.finish)) then
        cap.used = math.max(0, cap.used - share)
      end
      account.scopes[source.scope].changed = true
    end
  end
end

-- Returns the charge of a lease's expiry, before its settle charges the cost of the work, or its release nothing.
local function return_charge(account, lease)
  local sources = parse_sources(lease.terms.paid, '\29')
  uncount(account, sources, lease.charged, 0, lease.charged, sources.at)
  count_spent(account, lease.terms.member, -lease.charged)
  local of_balance = lease.charged - sources.allowance
  sources.allowance = 0
  give_back(account, sources, of_balance, 0, of_balance, true)
  await_grants(account)
  take_details(account)
  if of_this_period(account, lease) then
    account.period.used = account.period.used - lease.terms.allowance
    save_period(account)
  end
end
