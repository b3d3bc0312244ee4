-- include lib/opening
-- include lib/charge_inside
-- include lib/low_balance

-- All that a settle may need beyond a balance and a lease; as lib/credit_model, but that a settle asks for nothing and is
-- never refused for want of anything.
