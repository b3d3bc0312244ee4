"""Every rule about money is held by a test: a script that breaks it makes that test fail."""

import copy
from typing import Any, NamedTuple

import pytest

from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operations import Operations
from ducto_redis.engine.scripts import load_scripts, read_sources
from ducto_redis.errors import StoreError
from ducto_redis.store import CreditStore, MemoryStore
from ducto_redis.store.conformance import OpenStore, StoreConformance

SOURCES = read_sources()


class Mutant(NamedTuple):
    """A change to a script that breaks a rule, and the test of the conformance suite that must notice."""

    script: str
    this: str
    by_that: str
    killed_by: str
    arguments: dict[str, Any] = {}  # noqa: RUF012 - never changed


def step(step: str, state: str) -> dict[str, Any]:
    return {"step": step, "state": state}


TABLE = "test_every_step_in_every_state"

MUTANTS = [
    # Admission: what is available, the floor, the limit.
    Mutant("lib/admission", "- account.held - amount", "- amount", "test_deduct_respects_holds"),
    Mutant("lib/admission", "- amount < floor", "- amount <= floor", "test_deduct_is_exact_at_the_floor"),
    Mutant("lib/admission", "- amount < floor", "- amount < 0", "test_overdraft"),
    Mutant("lib/admission", "- amount < floor", "- amount < floor - 1", "test_reserve_is_exact_at_the_floor"),
    Mutant("lib/admission", "activation < account", "activation > account", "test_stale_prices_are_refused"),
    Mutant("lib/admission", "activation > account", "activation ~= account", "test_stale_prices_are_refused"),
    Mutant("lib/admission", ">= limit", "> limit", "test_journal_limit_counts_entries"),
    Mutant("lib/integer", "9007199254740991", "9007199254740992", "test_amounts_are_exact_to_the_limit"),
    Mutant(
        "lib/integer", "string.format('%.0f', number + 0)", "tostring(number)", "test_amounts_are_exact_to_the_limit"
    ),
    Mutant("reserve", "account.held + amount > MAX_MICRO", "false", "test_holds_are_exact_to_the_limit"),
    Mutant("extend", "account.held + amount > MAX_MICRO", "false", "test_holds_are_exact_to_the_limit"),
    Mutant(
        "release", "account.balance + lease.charged > MAX_MICRO", "false", "test_what_comes_back_respects_the_limit"
    ),
    Mutant(
        "settle", "account.balance + balance_change > MAX_MICRO", "false", "test_what_comes_back_respects_the_limit"
    ),
    # Idempotency.
    Mutant("lib/operation_record", "first ~= fingerprint", "false", "test_conflict"),
    Mutant("lib/operation_record", "return 'replayed\\t' .. answer", "return nil", "test_replay"),
    Mutant("add_credits", "return answer_and_remember(fingerprint, ARGV[4],\n ", "return 'ok\\t' .. (", "test_replay"),
    Mutant("extend", "return answer_and_remember(fingerprint, ARGV[6],", "return 'ok\\t' .. (", "test_extend"),
    Mutant("settle", "first_fingerprint ~= fingerprint", "false", TABLE, step("settle otherwise", "settled")),
    Mutant("settle", "how == 'released'", "false", TABLE, step("settle", "released")),
    Mutant("release", "how == 'settled'", "false", TABLE, step("release", "settled")),
    Mutant("reserve", "lease.fingerprint ~= fingerprint", "false", TABLE, step("reserve otherwise", "open")),
    Mutant("reserve", "if how then", "if false then", TABLE, step("reserve", "settled")),
    Mutant("reserve", "if lease.state ~= 'open'", "if false", TABLE, step("reserve", "expired")),
    # Settling and releasing.
    Mutant("settle", "own + above_floor", "own", "test_settle_above_the_hold"),
    Mutant("settle", "own + above_floor", "own + account.balance", "test_settle_never_takes_what_others_hold"),
    Mutant("settle", "- account.held - lease.floor", "- lease.floor", "test_settle_never_takes_what_others_hold"),
    Mutant("settle", "- account.held - lease.floor", "- account.held", "test_settle_stops_at_the_lease_s_floor"),
    Mutant("settle", "math.max(0, ", "(", "test_hold_pays_though_the_account_is_below_its_floor"),
    Mutant("settle", "math.min(cost, own + above_floor)", "cost", "test_settle_never_takes_what_others_hold"),
    Mutant("settle", "account.held = account.held - lease.amount", "", "test_settle_below_the_hold"),
    Mutant("settle", "local shortfall = cost - charged", "local shortfall = 0", "test_late_settle_has_no_hold"),
    Mutant("settle", "shortfall, ARGV[4]", "shortfall, lease.version", "test_entries_carry_the_version_of_their_price"),
    Mutant("settle", "ARGV[4] ~= lease.version then", "false then", "test_settle_at_the_lease_s_prices"),
    Mutant("release", "account.held = account.held - released", "", "test_release"),
    Mutant("release", "account.balance = account.balance + lease.charged", "", "test_late_release"),
    Mutant("extend", "short_of(account, amount, lease.floor)", "short_of(account, amount, 0)", "test_extend"),
    Mutant("renew", "math.max(lease.expires, time + tonumber(ARGV[3]))", "time + tonumber(ARGV[3])", "test_renew"),
    # Expiry.
    Mutant("lib/due", "#due_leases < DUE_A_CALL", "true", "test_more_is_due_than_a_call_applies"),
    Mutant("lib/due", "account.held = account.held - lease.amount", "", "test_reads_count_what_is_due"),
    Mutant("lib/due", "account.balance = account.balance - lease.charged", "", "test_expiry_with_charge"),
    Mutant("lib/due", "lease.charged = lease.amount", "", "test_expiry_with_charge"),
    Mutant("lib/due", "lease.on_expiry == 'charge'", "true", "test_reads_count_what_is_due"),
    Mutant("lib/due", "local DUE_A_CALL = 64", "local DUE_A_CALL = 65", "test_more_is_due_than_a_call_applies"),
    Mutant("lib/due", "visit(first, first_record)", "", "test_late_settle"),
    Mutant("lib/due", "if next_due then\n    redis.call('ZADD'", "if false then\n    redis.call('ZADD'", "test_sweep"),
    Mutant(
        "lib/due", "lease.expires + CLOSED_LEASE_KEPT or nil", "nil", "test_expired_leases_are_forgotten_after_a_day"
    ),
    Mutant("lib/lease", "= 86400000", "= 86300000", "test_expired_leases_are_forgotten_after_a_day"),
    Mutant(
        "reserve",
        "more_is_due and 'again' or refused",
        "refused",
        "test_nothing_is_refused_before_all_is_applied",
        {"operation": "reserve"},
    ),
    Mutant("deduct", "more_is_due and 'again' or refused", "refused", "test_more_is_due_than_a_call_applies"),
    Mutant(
        "extend",
        "account.due <= time and 'again' or refused",
        "false or refused",
        "test_nothing_is_refused_before_all_is_applied",
        {"operation": "extend"},
    ),
    Mutant("settle", "if shortfall > 0 and", "if false and", "test_no_shortfall_before_all_is_applied"),
    Mutant(
        "add_credits",
        "more_is_due and 'again' or",
        "false or",
        "test_no_limit_is_reached_before_all_is_applied",
        {"operation": "add"},
    ),
    Mutant("get_balance", "held = held - lease.amount", "", "test_reads_count_what_is_due"),
    Mutant("get_balance", "balance = balance - lease.amount", "", "test_reads_count_what_is_due"),
    Mutant("get_balance", "lease.expires <= time", "lease.expires >= time", "test_reads_count_what_is_due"),
    Mutant("lib/open_lease", "lease.state ~= 'open'", "false", TABLE, step("renew", "expired")),
    Mutant("reserve", "if falls_due_first then\n  redis.call", "if false then\n  redis.call", "test_sweep"),
    # The journal, and lost memory.
    Mutant("lib/account", "account.seq = account.seq + 1", "account.seq = account.seq + 2", "test_add_credits"),
    Mutant(
        "lib/account", "meta[1] ~= 'open'", "false", "test_no_fresh_accounts_after_a_loss", {"operation": "reserve"}
    ),
    Mutant("lib/account", "meta[1] ~= 'open'", "not meta[1]", "test_partition_that_is_not_open"),
    Mutant("lib/account", ".. entry_id\n      end", ".. '0-0'\n      end", "test_reserve"),
    Mutant("deduct", "amount, -amount, 0, ARGV[4]", "amount, 0, 0, ARGV[4]", "test_deduct"),
    Mutant("create_partition", "if existing == ARGV[1] then", "if false then", "test_create"),
    Mutant("create_partition", "if existing then", "if false then", "test_creating_again_changes_nothing"),
    # Pricing.
    Mutant("publish_pricing", "'active', version, ", "", "test_publish"),
    Mutant("activate_pricing", "integer(account.activation + 1)", "integer(account.activation)", "test_activate"),
    Mutant(
        "activate_pricing", "if stored[1] == version", "if false", "test_activating_the_active_version_changes_nothing"
    ),
]


def opener(sources: dict[str, str]) -> OpenStore:
    """Opens memory stores that run these scripts."""
    first = MemoryStore()

    def make(*, clock_offset_ms: int, journal_limit: int, partitions: int) -> CreditStore:
        store = copy.copy(first)
        store.namespace = Namespace("ducto", partitions)
        store.journal_limit = journal_limit
        scripts = load_scripts(clock_offset_ms=clock_offset_ms, shebang=False, sources=sources)
        store.operations = Operations(store.namespace, scripts)
        return store

    return OpenStore(make)


async def passes(test: str, sources: dict[str, str], arguments: dict[str, Any]) -> bool:
    """Whether a test of the suite passes with these scripts."""
    failure: BaseException | None = None
    try:
        await getattr(StoreConformance(), test)(opener(sources), **arguments)
    except (Exception, pytest.fail.Exception) as raised:
        failure = raised
    assert type(failure) is not StoreError, "the mutant is no script that runs"
    return failure is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.script}: {mutant.this} -> {mutant.by_that}")
async def test_mutant_is_killed(mutant: Mutant) -> None:
    """The named test fails with the mutant in place."""
    text = SOURCES[mutant.script]
    assert text.count(mutant.this) == 1, f"{mutant.script} has no single {mutant.this!r}: the table is out of date"
    mutated = {**SOURCES, mutant.script: text.replace(mutant.this, mutant.by_that)}
    assert not await passes(mutant.killed_by, mutated, mutant.arguments)


@pytest.mark.parametrize(("test", "arguments"), list({str(m[3:]): m[3:] for m in MUTANTS}.values()), ids=str)
async def test_killers_pass_without_a_mutant(test: str, arguments: dict[str, Any]) -> None:
    """What kills a mutant passes with the scripts as they are, called in the same way."""
    assert await passes(test, SOURCES, arguments)
