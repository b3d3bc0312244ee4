-- The server's clock, in milliseconds since 1970. The same for the whole of a script.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
