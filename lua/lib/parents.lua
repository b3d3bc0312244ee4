-- include lib/cap_counts
-- include lib/holds
-- include lib/lease
-- include lib/split

-- A lease may be opened inside another, its parent: what it holds is taken out of the parent's hold, and so is what it
-- is charged beyond that; what it does not spend goes back there. So all that is inside a lease never spends more than
-- it held.
--
-- A lease names all those that it is inside of, the nearest first, each with the time at which it was created: once it
-- is forgotten, its id may name another. What is given back goes to the nearest of them that is open. One that has
-- expired has given its hold up, but its record still says how much of it was left: that much may be charged late,
-- wherever it went. One that was charged when it expired, or was closed, has nothing left.

-- The most leases that one may be inside of.
local DEPTH = 16

-- Cached for the run, so a script that only reads sees its own changes.
local function find_lease(account, id)
  local leases = account.leases or {}
  account.leases = leases
  if leases[id] == nil then
    local record = redis.call('HGET', KEYS[2], id)
    leases[id] = record and parse_lease(record) or false
  end
  return leases[id] or nil
end

-- The leases that a lease is inside of: id, when it was created, and the lease itself where it is known.
local function parents_of(account, lease)
  local items, parents = split(lease.terms.parents or '', '\29'), {}
  for index = 1, #items, 2 do
    local parent = find_lease(account, items[index])
    parents[#parents + 1] = {id = items[index], lease = parent and parent.created == items[index + 1] and parent or nil}
  end
  return parents
end

-- The next commit writes the parent, too.
local function save_parent(account, parent)
  local parents = account.parents or {}
  account.parents = parents
  for _, saved in ipairs(parents) do
    if saved.id == parent.id then
      saved.record = format_lease(parent.lease)
      return
    end
  end
  parents[#parents + 1] = {id = parent.id, record = format_lease(parent.lease)}
end

-- A parent that a hold is to be taken out of, if it is open; else nil and the reply that says why it is not.
--   parent  id, and the lease where it is known
--   closed  how it was closed, where that is known
local function open_parent(account, parent, closed)
  local lease = parent.lease
  if not lease then
    return nil, closed and 'parent_closed\t' .. parent.id .. '\t' .. closed or 'parent_not_found\t' .. parent.id
  elseif lease.state ~= 'open' then
    return nil, 'parent_expired\t' .. parent.id
  elseif lease.expires <= account.time then
    return nil, account.more_is_due and 'again' or 'parent_expired\t' .. parent.id
  end
  return parent
end

-- The open lease of that id, that a new one is to be opened inside of; or nil and the reply that says why there is
-- none.
--   key  of the record of the closed lease of that id
local function parent_to_be(account, id, key)
  local lease, closed = find_lease(account, id), redis.call('GET', key)
  local parent, refusal = open_parent(account, {id = id, lease = lease}, closed and string.match(closed, '^[^\t]*'))
  if parent and #parents_of(account, lease) >= DEPTH - 1 then
    return nil, 'too_deep\t' .. integer(DEPTH)
  end
  return parent, refusal
end

-- Changes what a lease holds of balance and allowance.
local function change_hold(account, parent, amount, allowance)
  local lease = parent.lease
  lease.amount = lease.amount + amount
  lease.terms = with_terms(lease.terms, {allowance = lease.terms.allowance + allowance})
  save_parent(account, parent)
end

-- The recorded holds in spend caps, by scope and cap id with \29 between, from text and back.
local function parse_held(text, held)
  local items = split(text, '\29')
  held = held or {}
  for index = 1, #items, 3 do
    local name = items[index] .. '\29' .. items[index + 1]
    if not held[name] then
      held[#held + 1] = name
    end
    held[name] = (held[name] or 0) + tonumber(items[index + 2])
  end
  return held
end

local function format_held(held)
  local items = {}
  for _, name in ipairs(held) do
    if held[name] > 0 then
      items[#items + 1] = name .. '\29' .. integer(held[name])
    end
  end
  return table.concat(items, '\29')
end

-- The holds of a lease in spend caps, its own and inherited.
local function held_in_caps(terms)
  return parse_held(terms.caps, parse_held(terms.inherited or ''))
end

-- Takes up to an amount off what is recorded. Returns how much.
local function take_held(held, name, amount)
  local part = math.min(held[name] or 0, amount)
  if part > 0 then
    held[name] = held[name] - part
  end
  return part
end

-- Takes what an amount counts towards off what a parent holds in spend caps. Returns what was taken, as it is recorded.
local function take_from_caps(account, parent, scope_amounts)
  local terms, taken = parent.lease.terms, {}
  local inherited, caps = parse_held(terms.inherited or ''), parse_held(terms.caps)
  for _, each in ipairs(scope_amounts) do
    for _, cap in ipairs(account.scopes[each.scope].caps) do
      local name = each.scope .. '\29' .. cap.id
      local part = take_held(inherited, name, each.amount)
      taken[#taken + 1], taken[name] = name, part + take_held(caps, name, each.amount - part)
    end
  end
  parent.lease.terms = with_terms(terms, {
    inherited = terms.parents and format_held(inherited), caps = format_held(caps),
  })
  return format_held(taken)
end

-- Takes a hold out of a parent's. Returns what of it rests on the allowance, what it holds in spend caps of its own,
-- and what is inherited to it there.
--   caps, inherited  what the lease holds there before
local function hold_inside(account, parent, scope_amounts, amount, skip_allowance, caps, inherited)
  local allowance = skip_allowance and 0 or math.min(amount, parent.lease.terms.allowance)
  caps = count_hold(account, scope_amounts, caps, held_in_caps(parent.lease.terms))
  inherited = format_held(parse_held(take_from_caps(account, parent, scope_amounts), parse_held(inherited)))
  change_hold(account, parent, -amount, -allowance)
  return allowance, caps, inherited
end

-- Changes the expired holds around a lease: the most that may still be charged late, up to the first open lease.
local function change_expired_holds(account, lease, amount)
  for _, parent in ipairs(parents_of(account, lease)) do
    local its = parent.lease
    if its and its.state == 'open' then
      return
    elseif its and its.charged == 0 then
      its.amount = math.max(0, its.amount + amount)
      its.terms = with_terms(its.terms, {allowance = math.min(its.terms.allowance, its.amount)})
      save_parent(account, parent)
    end
  end
end

-- The nearest open lease that a lease is inside of; nil where it is the account's alone.
local function holder_of(account, lease)
  for _, parent in ipairs(parents_of(account, lease)) do
    if parent.lease and parent.lease.state == 'open' then
      return parent
    end
  end
end

-- A lease that is open holds nothing any more: its holder has it back, else the account.
local function give_up_hold(account, lease)
  local terms, holder = lease.terms, holder_of(account, lease)
  if not holder then
    undo_hold(account, lease)
  else
    local its = holder.lease.terms
    local name = its.parents and 'inherited' or 'caps'
    release_hold(account, terms.caps)
    holder.lease.terms = with_terms(its, {[name] = format_held(parse_held(terms.inherited, parse_held(its[name])))})
    change_hold(account, holder, lease.amount, terms.allowance)
  end
  change_expired_holds(account, lease, lease.amount)
end
