"""Mutants of the scripts that every account runs, each with the test of the conformance suite that kills it."""

from tests.model.mutant import Mutant

MUTANTS = [
    # What is available, the floor, the limits.
    Mutant("lib/funds", "- account.held - amount >= floor", "- amount >= floor", "test_deduct_respects_holds"),
    Mutant("lib/funds", "- amount >= floor then", "- amount > floor then", "test_deduct_is_exact_at_the_floor"),
    Mutant("lib/funds", "- amount >= floor then", "- amount >= 0 then", "test_deduct_is_exact_at_the_floor"),
    Mutant("lib/funds", "- amount >= floor then", "- amount >= floor - 1 then", "test_deduct_is_exact_at_the_floor"),
    Mutant("lib/funds", "if allowance + account.balance", "if account.balance", "test_a_new_period_is_a_new_allowance"),
    Mutant("lib/funds", "activation < account.activation", "activation > account.activation", "test_deduct"),
    Mutant("lib/admit", ">= journal_limit then", "> journal_limit then", "test_full_journal"),
    Mutant(
        "lib/funds",
        "math.max(0, account.balance - account.held - floor)",
        "(account.balance - account.held - floor)",
        "test_hold_pays_though_the_account_is_below_its_floor",
    ),
    Mutant(
        "lib/funds",
        "math.max(0, account.balance - account.held - floor)",
        "math.max(0, account.balance - floor)",
        "test_settle_never_takes_what_others_hold",
    ),
    Mutant(
        "lib/funds",
        "math.max(0, account.balance - account.held - floor)",
        "math.max(0, account.balance - account.held)",
        "test_settle_stops_at_the_lease_s_floor",
    ),
    Mutant("lib/funds", "math.max(0, account.balance - account.held - floor)", "0", "test_settle_above_the_hold"),
    Mutant("lib/funds", "and conditions == ''", "", "test_it_comes_before_funds"),
    Mutant(
        "lib/funds",
        " and not (account.due and account.due <= (time or now()))",
        "",
        "test_expiry_is_applied_on_touch",
        {"touch": "deduct"},
    ),
    # Deducting.
    Mutant("deduct", "math.max(account.activation, activation)", "activation", "test_stale_prices_are_refused"),
    Mutant(
        "deduct",
        "balance_change = allowance - amount",
        "balance_change = -amount",
        "test_a_new_period_is_a_new_allowance",
    ),
    Mutant("deduct", "  spend_allowance(account, allowance)\n", "", "test_allowance_counts_for_admission"),
    Mutant(
        "deduct",
        "  count_charge(account, scope_amounts)\n",
        "",
        "test_a_new_window_begins_at_nothing",
        {"window": "minute"},
    ),
    Mutant("deduct", "  count_spent(account, conditions.member, amount)\n", "", "test_members_spend"),
    Mutant(
        "deduct", "  fire_low_levels(account, conditions.low_levels, before)\n", "", "test_allowance_does_not_count"
    ),
    # Numbers.
    Mutant("lib/integer", "9007199254740991", "9007199254740992", "test_amounts_are_exact_to_the_limit"),
    Mutant(
        "lib/integer", "string.format('%.0f', number + 0)", "tostring(number)", "test_amounts_are_exact_to_the_limit"
    ),
    # Reserving.
    Mutant(
        "reserve",
        "lease.fingerprint ~= fingerprint",
        "false",
        "test_every_step_in_every_state",
        {"step": "reserve otherwise", "state": "open"},
    ),
    Mutant(
        "reserve",
        "return how and 'closed\\t' .. how",
        "return nil",
        "test_every_step_in_every_state",
        {"step": "reserve", "state": "settled"},
    ),
    Mutant(
        "reserve",
        "lease.state ~= 'open' or lease.expires <= time",
        "false",
        "test_every_step_in_every_state",
        {"step": "reserve", "state": "expired"},
    ),
    Mutant("reserve", "account.read_only = dry_run", "", "test_dry_run"),
    Mutant(
        "reserve",
        "math.min(account.due or lease.expires, lease.expires)",
        "account.due or lease.expires",
        "test_leases_expire_each_at_its_time",
    ),
    Mutant(
        "reserve", "caps = count_hold(account, scope_amounts, '')", "caps = ''", "test_held_over_the_end_of_a_window"
    ),
    Mutant(
        "reserve",
        "terms.period = terms.allowance > 0 and account.period.number or 0",
        "terms.allowance, terms.period = 0, 0",
        "test_expired_lease_and_its_allowance",
        {"on_expiry": "release"},
    ),
    # Extending.
    Mutant("extend", "lease.floor, 0, nil", "0, 0, nil", "test_extend"),
    Mutant("extend", "not priced_alike(lease, version, terms.plan)", "false", "test_settle_at_the_lease_s_prices"),
    Mutant(
        "extend",
        "allowance = terms.allowance + allowance",
        "allowance = terms.allowance",
        "test_extend_takes_allowance",
    ),
    Mutant(
        "extend",
        "caps, period = count_hold(account, scope_amounts, terms.caps)",
        "caps, period = terms.caps",
        "test_what_is_reserved_counts",
    ),
    # Releasing.
    Mutant("release", "account.balance > MAX_MICRO", "false", "test_what_comes_back_respects_the_limit"),
    Mutant("release", "  return_charge(account, lease)\n", "", "test_late_release"),
    Mutant(
        "release",
        "  give_up_hold(account, lease)\n",
        "",
        "test_every_step_in_every_state",
        {"step": "reserve", "state": "released"},
    ),
    Mutant("release", "expire_unheld_grants(account)", "local _ = nil", "test_new_credits_do_not_expire_with_old_ones"),
    Mutant(
        "release",
        "how == 'settled'",
        "false",
        "test_every_step_in_every_state",
        {"step": "release", "state": "settled"},
    ),
    # Settling.
    Mutant("settle", "account.balance > MAX_MICRO", "false", "test_what_comes_back_respects_the_limit"),
    Mutant(
        "settle",
        "first_fingerprint ~= fingerprint",
        "false",
        "test_every_step_in_every_state",
        {"step": "settle otherwise", "state": "settled"},
    ),
    Mutant(
        "settle",
        "how == 'released'",
        "false",
        "test_every_step_in_every_state",
        {"step": "settle", "state": "released"},
    ),
    Mutant("settle", "account.held - lease.amount", "account.held", "test_entries_carry_the_version_of_their_price"),
    Mutant(
        "settle",
        "math.min(cost, lease.amount + above_floor(account, lease.floor))",
        "cost",
        "test_hold_pays_though_the_account_is_below_its_floor",
    ),
    Mutant("settle", "shortfall = cost - charged", "shortfall = 0", "test_settle_never_takes_what_others_hold"),
    Mutant(
        "settle",
        "version = version, cause",
        "version = lease.version, cause",
        "test_entries_carry_the_version_of_their_price",
    ),
    Mutant(
        "settle", "if not priced_alike(lease, version, '') then", "if false then", "test_settle_at_the_lease_s_prices"
    ),
    Mutant(
        "settle",
        "if not priced_alike(lease, version, conditions.plan) then",
        "if false then",
        "test_lease_is_priced_under_its_own_plan",
    ),
    Mutant(
        "settle",
        "if (own + left + spendable < cost or payable < cost) and",
        "if false and",
        "test_no_shortfall_before_all_is_applied",
    ),
    Mutant(
        "settle",
        "account.balance = before + ((open and 0 or own - own_allowance) - from_balance)",
        "local _ = nil",
        "test_what_comes_back_respects_the_limit",
    ),
    Mutant(
        "settle",
        "math.min(payable - allowance, own - own_allowance + spendable)",
        "payable - allowance",
        "test_settle_takes_allowance_that_nobody_holds",
    ),
    Mutant(
        "settle",
        "math.min(payable - allowance, own - own_allowance + spendable)",
        "math.min(payable - allowance, own - own_allowance)",
        "test_late_settle_and_the_allowance",
        {"on_expiry": "release", "cost": 110, "balance": 40, "used": 100},
    ),
    Mutant(
        "settle",
        "spend_balance(account, from_balance, true)",
        "spend_balance(account, from_balance, false)",
        "test_leases_that_rest_on_it",
    ),
    Mutant(
        "settle",
        "own_allowance > 0 and not of_this_period(account, lease)",
        "false",
        "test_older_lease_takes_nothing_of_the_new_period",
    ),
    Mutant(
        "settle",
        "math.max(own_allowance, allowance_left(account))",
        "allowance_left(account)",
        "test_settle_before_the_new_period_is_known",
    ),
    Mutant(
        "settle",
        "math.max(own_allowance, allowance_left(account))",
        "own_allowance",
        "test_late_settle_and_the_allowance",
        {"on_expiry": "release", "cost": 60, "balance": 50, "used": 60},
    ),
    Mutant("settle", "return expire_unheld_grants", "return nil", "test_soonest_expiry_first"),
    Mutant("settle", "  count_charge(account, scope_amounts)\n", "", "test_entries_say_what_was_counted"),
    Mutant("settle", "  count_spent(account, terms.member, charged)\n", "", "test_expiry_counts_for_the_member"),
    Mutant("settle", "  fire_low_levels(account, conditions.low_levels, before)\n", "", "test_settle_fires"),
    Mutant("settle", "    give_up_hold(account, lease)\n", "", "test_entries_say_what_was_counted"),
    # Renewing.
    Mutant(
        "renew",
        "math.max(lease.expires, account.time + lives_ms)",
        "account.time + lives_ms",
        "test_renew",
    ),
    # Idempotency.
    Mutant("lib/once", "first ~= fingerprint", "false", "test_conflict"),
    Mutant("lib/once", "return 'replayed\\t' .. answer", "local _ = nil", "test_journal_limit_counts_entries"),
    # Leases.
    Mutant(
        "lib/open_lease",
        "lease.state ~= 'open'",
        "false",
        "test_every_step_in_every_state",
        {"step": "renew", "state": "expired"},
    ),
    Mutant("lib/lease", "= 86400000", "= 86300000", "test_expired_leases_are_forgotten_after_a_day"),
    Mutant("lib/lease", "and plan == lease.terms.plan", "", "test_lease_is_priced_under_its_own_plan"),
    # What falls due.
    Mutant("lib/due", "local DUE_A_CALL = 64", "local DUE_A_CALL = 65", "test_more_is_due_than_a_call_applies"),
    Mutant("lib/due", "    due_leases[index] = nil\n", "", "test_more_is_due_than_a_call_applies"),
    Mutant("lib/due", "    apply_leases(grant.expires)\n", "", "test_late_comes_to_the_same", {"on_expiry": "charge"}),
    Mutant(
        "lib/due",
        "math.max(each.lease.expires + CLOSED_LEASE_KEPT, time + 1)",
        "each.lease.expires + CLOSED_LEASE_KEPT",
        "test_what_leases_rest_on_expires_once",
    ),
    Mutant("lib/due", "    await(left)\n", "", "test_more_is_due_than_a_call_applies"),
    Mutant(
        "lib/due",
        "await(math.max(each.lease.expires + CLOSED_LEASE_KEPT, time + 1))",
        "",
        "test_expired_leases_are_forgotten_after_a_day",
    ),
    Mutant("lib/due", "    give_up_hold(account, lease)\n", "", "test_a_lease_expires_at_its_very_time"),
    Mutant("lib/due", "lease.on_expiry == 'charge'", "true", "test_a_lease_expires_at_its_very_time"),
    Mutant("lib/due", "    lease.charged = lease.amount\n", "", "test_late_release"),
    Mutant("lib/due", "    spend_balance(account, of_balance, true)\n", "", "test_expiry_with_charge"),
    Mutant(
        "lib/due",
        "      spend_allowance(account, terms.allowance)\n",
        "",
        "test_expired_lease_and_its_allowance",
        {"on_expiry": "charge"},
    ),
    Mutant(
        "lib/due",
        "    count_charge(account, scope_amounts)\n",
        "",
        "test_expiry_frees_or_uses_a_cap",
        {"on_expiry": "charge", "used": 60},
    ),
    Mutant(
        "lib/due", "    count_spent(account, terms.member, lease.amount)\n", "", "test_expiry_counts_for_the_member"
    ),
    Mutant(
        "lib/due",
        "math.min(grant.remaining, math.max(0, account.balance - account.held))",
        "grant.remaining",
        "test_leases_that_rest_on_it",
    ),
    Mutant(
        "lib/due",
        "math.max(0, account.balance - account.held)",
        "math.max(0, account.balance)",
        "test_leases_that_rest_on_it",
    ),
    Mutant(
        "lib/due",
        "credits = credits + expire_unheld_grants(account)",
        "",
        "test_what_closes_expires_the_rest",
        {"end": "expiry"},
    ),
    Mutant(
        "lib/due",
        "grant.expires ~= 0 and grant.expires >= account.due",
        "grant.expires ~= 0",
        "test_what_closes_expires_the_rest",
        {"end": "expiry"},
    ),
    # The journal, and lost memory.
    Mutant("lib/account", "account.seq = account.seq + 1", "account.seq = account.seq + 2", "test_add_credits"),
    Mutant("lib/account", "meta[1] ~= 'open'", "not meta[1]", "test_partition_that_is_not_open"),
    Mutant(
        "lib/account", ".. entry_id\n      end", ".. '0-0'\n      end", "test_entries_carry_the_version_of_their_price"
    ),
    Mutant("lib/account", "append(account, opening, opening.fields)", "local _ = nil", "test_entry_of_the_opening"),
    Mutant("create_partition", "if existing == namespace_id then", "if false then", "test_create"),
    Mutant("create_partition", "if existing then", "if false then", "test_created_by_many_at_once_is_one"),
    # Pricing.
    Mutant(
        "publish_pricing",
        "set_field(account, 'active', version)\n",
        "",
        "test_activating_the_active_version_changes_nothing",
    ),
    Mutant("activate_pricing", "account.activation = account.activation + 1", "", "test_activate"),
    Mutant(
        "activate_pricing", "if stored[1] == version", "if false", "test_activating_the_active_version_changes_nothing"
    ),
]
