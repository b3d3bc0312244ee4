-- Above it, doubles skip integers: no amount, balance or sum of holds may pass it.
local MAX_MICRO = 9007199254740991

-- An integer as text. Lua's own conversion keeps 14 digits and turns larger integers into 1.23e+15; adding 0 makes -0 a
-- 0.
local function integer(number)
  return string.format('%.0f', number + 0)
end
