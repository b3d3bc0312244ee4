-- The pool is what the balance is above the grants: credits that never expire. Among grants it is spent at this
-- priority.
local POOL_PRIORITY = 50
