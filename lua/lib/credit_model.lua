-- include lib/opening
-- include lib/admission
-- include lib/low_balance

-- All that an account may have beyond a balance and leases: plan and allowance, grants, caps, members, and what falls due.
-- The scripts of the hot path include it inside a function that a plain account never calls.
