-- include lib/parents
-- include lib/spending

-- The charge of a lease that is inside others: from its own hold and from that of its parent, never from the account
-- beyond them.

-- The most that it may be charged beyond its own, micro-credits. Where one of those that it is inside of is not known
-- any more, the hold of that one has been given up for good.
local function reach(account, lease)
  local most = math.huge
  for _, parent in ipairs(parents_of(account, lease)) do
    local its = parent.lease
    if not its or its.charged > 0 then
      return 0
    end
    most = math.min(most, its.amount)
    if its.state == 'open' then
      break
    end
  end
  return most
end

-- Charges what a lease cost to the open one that has its hold back, allowance first.
--   amount          micro-credits
--   own             micro-credits that its expiry had charged, and that were given back
--   own_allowance   the part of them that the allowance paid
-- Returns what the allowance pays, what the balance is to pay, and what both took of the holder's hold.
local function charge_holder(account, lease, holder, amount, own, own_allowance, skip_allowance)
  local its, period = holder.lease, account.period
  local from_allowance = skip_allowance and 0 or math.min(amount, own_allowance + its.terms.allowance)
  local from_balance = math.min(amount - from_allowance, own - own_allowance + balance_part(its))
  local held_allowance = math.max(0, from_allowance - own_allowance)
  local held_balance = math.max(0, from_balance - (own - own_allowance))
  local number = lease.terms.period ~= 0 and lease.terms.period or its.terms.period
  if period and period.number == number then
    period.held = period.held - held_allowance
    spend_allowance(account, from_allowance)
  else
    note_old_allowance(account, number, from_allowance)
  end
  account.held = account.held - held_balance
  change_hold(account, holder, -held_allowance - held_balance, -held_allowance)
  return from_allowance, from_balance, held_allowance + held_balance
end

-- Releases the holder's hold of a charge in spend caps.
local function release_charged(account, holder, scope_amounts)
  release_hold(account, take_from_caps(account, holder, scope_amounts))
  save_parent(account, holder)
end
