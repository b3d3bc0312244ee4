-- include lib/account

-- The allowance: credits of the account's plan in a period, spent before the balance. One field, separated by \31:
--   number  the seq of the change that began the period: leases name it
--   start, finish   milliseconds; the finish is not in it
--   limit   micro-credits of the plan
--   rolled  micro-credits that the period before left over
--   used    micro-credits that were spent
--   held    micro-credits that open leases rest on
local PERIOD = '^(%d+)\31(%d+)\31(%d+)\31(%d+)\31(%d+)\31(%d+)\31(%d+)$'

local function parse_period(text)
  if text == '' then
    return nil
  end
  local number, start, finish, limit, rolled, used, held = string.match(text, PERIOD)
  return {
    number = tonumber(number), start = tonumber(start), finish = tonumber(finish), limit = tonumber(limit),
    rolled = tonumber(rolled), used = tonumber(used), held = tonumber(held),
  }
end

local function save_period(account)
  local period = account.period
  set_extended(account, 'period', period and integer(period.number) .. '\31' .. integer(period.start) .. '\31' ..
    integer(period.finish) .. '\31' .. integer(period.limit) .. '\31' .. integer(period.rolled) .. '\31' ..
    integer(period.used) .. '\31' .. integer(period.held) or '')
end

-- The unused part of a period, running or over.
local function unused(period)
  return math.max(0, period.limit + period.rolled - period.used - period.held)
end

local function allowance_left(account)
  local period = account.period
  if period and account.time < period.finish then
    return unused(period)
  end
  return 0
end

-- The next period, after the one that ended. What was left of it rolls over, and so does the limit of every whole
-- period that nobody touched in between.
local function roll_period(account, terms)
  local period, rolled = account.period, 0
  if period then
    local skipped = math.max(0, math.floor((terms.start - period.finish) / (terms.finish - terms.start) + 0.5))
    rolled = math.min(terms.rollover, unused(period) + skipped * period.limit)
  end
  account.period = {
    number = next_seq(account), start = terms.start, finish = terms.finish, limit = terms.allowance, rolled = rolled,
    used = 0, held = 0,
  }
end
