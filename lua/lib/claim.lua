-- The claim of a partition, a hash:
--   token    names its owner, empty where nobody owns it; `<number>/<worker id>`
--   number   counts the owners
--   expires  milliseconds

-- Tells whether the token is still the owner's. A claim that ran out is good until somebody else takes it.
local function holds_claim(claim, token)
  return token ~= '' and redis.call('HGET', claim, 'token') == token
end
