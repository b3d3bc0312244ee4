"""Mutants of leases inside leases, each with the test of the conformance suite that kills it."""

from tests.model.mutant import Mutant

MUTANTS = [
    # Opening and extending inside.
    Mutant(
        "lib/parents",
        "change_hold(account, parent, -amount, -allowance)",
        "save_parent(account, parent)",
        "test_hold_is_taken_out_of_the_parent_s",
    ),
    Mutant("lib/parents", "math.min(amount, parent.lease.terms.allowance)", "0", "test_allowance"),
    Mutant("lib/parents", ", -amount, -allowance)", ", -amount, 0)", "test_allowance"),
    Mutant("lib/parents", ">= DEPTH - 1", ">= DEPTH", "test_depth_is_limited"),
    Mutant("lib/parents", "parent.created == items[index + 1] and parent", "parent", "test_id_that_is_used_again"),
    Mutant(
        "lib/admission",
        "  if amount > left then",
        "  if amount > left + 1 then",
        "test_refusal_for_want_of_the_parent_s_hold",
    ),
    Mutant(
        "lib/admission",
        "skip_allowance and balance_part(parent.lease) or parent.lease.amount",
        "parent.lease.amount + account.balance",
        "test_refusal_for_want_of_the_parent_s_hold",
    ),
    Mutant(
        "lib/admission",
        "(operation_type and not parent and",
        "(operation_type and",
        "test_what_is_inside_does_not_run_beside_it",
    ),
    Mutant(
        "lib/admission",
        "and\n      not lease.terms.parents then",
        "then",
        "test_what_is_inside_does_not_run_beside_it",
    ),
    Mutant(
        "lib/admission",
        "parent and held_in_caps(parent.lease.terms)",
        "nil",
        "test_caps_that_the_parent_is_held_in",
    ),
    Mutant(
        "lib/cap_counts",
        "return covered and math.max(0, amount - (covered[scope .. '\\29' .. cap.id] or 0)) or amount",
        "return covered and 0 or amount",
        "test_caps_that_the_parent_is_not_held_in",
    ),
    Mutant(
        "lib/cap_counts",
        "return covered and math.max(0, amount - (covered[scope .. '\\29' .. cap.id] or 0)) or amount",
        "return amount",
        "test_caps_that_the_parent_is_held_in",
    ),
    Mutant("reserve", "    floor = its.floor\n", "", "test_late_settle_goes_to_the_parent_s_floor"),
    Mutant("reserve", "    version = version ~= '0' and version or its.version\n", "", "test_prices_are_the_parent_s"),
    Mutant(
        "reserve",
        "not priced_alike(its, version, activation == 0 and its.terms.plan or conditions.plan)",
        "false",
        "test_prices_are_the_parent_s",
    ),
    Mutant(
        "reserve",
        "conditions.member ~= '' and conditions.member or its.terms.member",
        "conditions.member",
        "test_member_is_the_parent_s",
    ),
    Mutant("extend", "if terms.parents then", "if false then", "test_extend_takes_of_the_parent_s_hold"),
    Mutant(
        "extend",
        "conditions.skip_allowance = not parent and terms.period ~= 0 and not runs",
        "conditions.skip_allowance = not parent and terms.allowance > 0 and not runs",
        "test_allowance_of_an_older_period",
    ),
    # Giving back.
    Mutant(
        "lib/parents",
        "    change_hold(account, holder, lease.amount, terms.allowance)\n",
        "    save_parent(account, holder)\n",
        "test_what_is_not_spent_goes_back_to_the_parent",
    ),
    Mutant("lib/parents", ", lease.amount, terms.allowance)", ", lease.amount, 0)", "test_allowance"),
    Mutant(
        "lib/parents",
        "  if not holder then\n    undo_hold",
        "  if true then\n    undo_hold",
        "test_what_is_not_spent_goes_back_to_the_parent",
    ),
    Mutant(
        "lib/parents",
        "parse_held(terms.inherited, parse_held(its[name]))",
        "parse_held(its[name])",
        "test_caps_that_the_parent_is_held_in",
    ),
    Mutant("lib/parents", "    release_hold(account, terms.caps)\n", "", "test_caps_that_the_parent_is_not_held_in"),
    Mutant(
        "lib/parents",
        "  change_expired_holds(account, lease, lease.amount)\n",
        "",
        "test_late_settle_after_the_parent_expired_too",
        {"first": "run", "cost": 60, "charged": 50},
    ),
    Mutant(
        "lib/due",
        "    give_up_hold(account, lease)\n",
        "    undo_hold(account, lease)\n",
        "test_expiry",
        {"on_expiry": "release", "run": 50, "balance": 100},
    ),
    # Settling.
    Mutant(
        "settle", "and lease.terms == NO_LEASE_TERMS and", "and", "test_settle_above_the_hold_takes_of_the_parent_s"
    ),
    Mutant(
        "settle",
        "terms.parents and math.min(cost, own + reach(account, lease)) or cost",
        "cost",
        "test_parent_that_ends_first",
        {"how": "released"},
    ),
    Mutant("settle", "own + reach(account, lease)", "own", "test_settle_above_the_hold_takes_of_the_parent_s"),
    Mutant(
        "settle",
        "  change_expired_holds(account, lease, -of_expired_holds)\n",
        "",
        "test_late_settle_after_the_parent_expired_too",
        {"first": "call", "cost": 15, "charged": 15},
    ),
    Mutant(
        "settle", "    release_charged(account, holder, scope_amounts)\n", "", "test_caps_that_the_parent_is_held_in"
    ),
    Mutant("lib/charge_inside", "its.charged > 0", "false", "test_late_settle_and_a_parent_whose_expiry_was_charged"),
    Mutant(
        "lib/charge_inside", "most = math.min(most, its.amount)", "most = its.amount", "test_late_settle_in_the_depth"
    ),
    Mutant(
        "lib/charge_inside",
        "  account.held = account.held - held_balance\n",
        "",
        "test_what_is_not_spent_goes_back_to_the_parent",
    ),
    Mutant("lib/charge_inside", "    period.held = period.held - held_allowance\n", "", "test_allowance"),
    Mutant("lib/charge_inside", "own_allowance + its.terms.allowance", "own_allowance", "test_allowance"),
    Mutant(
        "lib/charge_inside",
        "change_hold(account, holder, -held_allowance - held_balance, -held_allowance)",
        "save_parent(account, holder)",
        "test_what_is_not_spent_goes_back_to_the_parent",
    ),
]
