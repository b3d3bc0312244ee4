-- What stands before every reserve, deduct and extend, and the words of the refusals.

-- The account keeps the highest activation of a pricing document that any call carried: a call that was priced under an
-- older one is told to price again. '0' is a call that nothing was priced for.
local function stale(account, activation)
  if activation ~= 0 and activation < account.activation then
    return 'stale\t' .. integer(account.activation)
  end
end

-- Adds the raised activation, if it is one, to the fields that change.
local function raise_activation(account, activation, fields)
  if activation > account.activation then
    fields[#fields + 1] = 'activation'
    fields[#fields + 1] = integer(activation)
  end
end

-- Refuses what would take the available credits below the floor. The last detail is the time before which no lease expires.
local function short_of(account, amount, floor)
  if account.balance - account.held - amount < floor then
    return 'insufficient\t' .. integer(amount) .. '\t' .. integer(account.balance) .. '\t' .. integer(account.held) ..
      '\t' .. integer(floor) .. '\t' .. (account.held > 0 and account.due and integer(account.due) or '')
  end
end

-- Refuses new work while the journal (KEYS[3]) waits for its consumers.
local function journal_full(limit)
  if redis.call('XLEN', KEYS[3]) >= limit then
    return 'journal_full\t' .. integer(limit)
  end
end
