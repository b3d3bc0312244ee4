-- Calendar windows of spend caps, see lib/caps.

-- Tells whether a calendar window is over, or was never known, and so needs bounds.
local function window_ended(cap, time)
  return cap.rolling == '0' and cap.window ~= 'total' and cap.finish <= time
end

local function window_name(cap)
  return cap.window .. '@' .. cap.zone
end
