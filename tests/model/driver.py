"""Asks the model and a store the same, and compares answers, refusals, journals and all that they keep."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
from hypothesis.stateful import RuleBasedStateMachine, invariant

from ducto_redis.engine.entry import ENTRY_FIELD, JournalEntry, decode_entry
from ducto_redis.engine.operation import PLAIN, Conditions
from ducto_redis.engine.operations import Operations
from ducto_redis.engine.scripts import Scripts, load_scripts, read_sources
from ducto_redis.engine.state import AccountState
from ducto_redis.errors import (
    AccountFrozenError,
    CapNotFoundError,
    CapReachedError,
    ConcurrencyLimitError,
    ConfigError,
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidAmountError,
    LeaseClosedError,
    LeaseExpiredError,
    LeaseNotFoundError,
    MemberNotFoundError,
    RefundError,
    RepriceLease,
    StalePricing,
    TeamNotFoundError,
    TermsNeeded,
)
from ducto_redis.money import to_signed_micro
from ducto_redis.results import CapWarning
from ducto_redis.run_sync import run_sync
from ducto_redis.store.script_store import ScriptStore
from tests.model import stored
from tests.model.account import Account, Answer, Crossed, Entry, Refused
from tests.model.model import Model
from tests.model.plans import terms_of

START = 1_700_000_000_000
DEFAULT_PLAN, BONUS = "free", 7

MONEY = ("amount", "available", "shortfall", "held", "allowance", "allowance_consumed", "allowance_restored", "lost")
CHARGES = ("deduct", "settle")


class Call(msgspec.Struct, frozen=True):
    """What a manager knows and wants when it calls, besides the price.

    Attributes:
        plain: whether it takes the account for a plain one.
        plan: the plan that it believes the account to have; None for what it has.
        behind: how many documents it is behind the active one.
        models: how many models share the price.
    """

    plain: bool = False
    plan: str | None = None
    behind: int = 0
    member: str = ""
    models: int = 0
    max_concurrent: int | None = None
    low_levels: tuple[int, ...] = ()
    skip_allowance: bool = False


@cache
def scripts_with_clock(key: str, *, shebang: bool = False) -> Scripts:
    """The scripts, with a clock that a key holds, so that it stands still."""
    clock = f"local function now()\n  return tonumber(redis.call('GET', '{key}'))\nend\n"
    return load_scripts(sources={**read_sources(), "lib/now": clock}, shebang=shebang)


class Driver(RuleBasedStateMachine):
    """The model and a store, side by side; a subclass says which store."""

    make_store: Callable[[], ScriptStore]
    shebang = False

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(START)
        self.store = type(self).make_store()
        self.client = self.store.redis()
        self.seen: dict[int, bytes] = {}
        self.entries: dict[str, list[JournalEntry]] = {}
        self.names: dict[str, stored.Names] = {}
        self.compared = 0
        self.steps = 0
        self.active = 1
        """The activation of the pricing document."""
        self.opens = False
        """Whether the document opens new accounts."""
        self.lowest: dict[str, int] = {}
        """How low each account's available credits may be: the lowest floor that something was admitted under."""
        self.clock = f"{self.store.namespace.name}:clock"
        self.store.operations = Operations(self.store.namespace, scripts_with_clock(self.clock, shebang=self.shebang))
        self.set_clock()

    def teardown(self) -> None:
        run_sync(self.store.close())

    def set_clock(self) -> None:
        self.client.set(self.clock, self.model.now)

    # The manager's part.

    def conditions(self, name: str, call: Call, amount: int = 0) -> Conditions:
        """What a manager that knows so much would send."""
        account = self.model.account(name)
        if call.plain:
            return PLAIN
        opens = self.opens and account.team is None
        known = account.plan.id if account.plan else ""
        if call.plan is not None:
            known = call.plan
        if account.seq == 0 and opens:  # what nobody can be wrong about
            known = DEFAULT_PLAN
        half = amount // 2
        models = [(), (("gpt", amount),), (("gpt", half), ("dalle", amount - half)), (("dalle", half),)][call.models]
        return Conditions(
            opens=opens,
            bonus=BONUS if opens else 0,
            activation=max(1, self.active - call.behind),
            plan=known,
            member=call.member,
            models=models,
            max_concurrent=call.max_concurrent,
            low_levels=call.low_levels,
            skip_allowance=call.skip_allowance,
        )

    def ask(
        self,
        expected: Callable[[Conditions], Answer],
        work: Callable[[Conditions], Coroutine[Any, Any, Any]],
        conditions: Conditions,
    ) -> Any:
        """Both are asked; where they ask for terms, they get them, and must not ask again."""
        answer = self.compare(lambda: expected(conditions), work(conditions))
        if not isinstance(answer, tuple) or answer[0] != "terms":
            return answer
        _, plan, assigned, zone, now, windows = answer
        terms = terms_of(plan, self.active, zone, assigned, now, windows)
        if conditions is PLAIN:
            conditions = Conditions()
        conditions = msgspec.structs.replace(conditions, plan=plan, activation=self.active, terms=terms)
        answer = self.compare(lambda: expected(conditions), work(conditions))
        assert not isinstance(answer, tuple) or answer[0] != "terms", "it asked again"
        return answer

    # Comparing.

    def compare(self, expected: Callable[[], Answer], work: Coroutine[Any, Any, Any]) -> Any:
        """Both answer the same, or both refuse for the same reason."""
        before = {name: (account.seq, account.due) for name, account in self.model.accounts.items()}
        try:
            answer: Any = expected()
        except Refused as refused:
            answer = refused.args
        try:
            result = run_sync(work)
        except Exception as error:  # what is no refusal is raised again there
            given: Any = words_of(error, answer)
        else:
            self.read_journals()
            given = self.answer_of(result, answer) if isinstance(answer, dict) else result
        if isinstance(answer, tuple) and answer[0] == "cap" and isinstance(given, tuple) and given[0] == "cap":
            account = given[1]
            self.read_names(account)
            # A cap of the plan that nothing was counted in yet has no name: it is in the terms alone.
            given = ("cap", self.names[account].get((given[3], given[2]), answer[1]), *given[3:])
        assert given == answer, (given, answer, before)
        return answer

    def answer_of(self, result: Any, wanted: Answer) -> Answer:
        """The result in the words of the model."""
        answer: Answer = {}
        for name in wanted:
            match name:
                case "transaction":
                    answer[name] = self.seqs(result.account)[result.transaction_id]
                case "expires":
                    answer[name] = in_milliseconds(result.expires_at)
                case "balance":
                    balance = result.balance if hasattr(result, "balance") else result.balance_after
                    answer[name] = to_signed_micro(balance)
                case "refunded":
                    answer[name] = to_signed_micro(result.refunded)
                case "warnings":
                    self.read_names(result.account)
                    answer[name] = tuple(self.crossed(result.account, warning) for warning in result.warnings)
                case "low_levels":
                    answer[name] = tuple(to_signed_micro(level) for level in result.low_levels)
                case _ if name in MONEY:
                    answer[name] = to_signed_micro(getattr(result, name))
                case _:
                    answer[name] = getattr(result, name)
        if "warnings" in answer:
            answer["warnings"] = tuple(sorted(answer["warnings"], key=str))
            wanted["warnings"] = tuple(sorted(wanted["warnings"], key=str))
        return answer

    def crossed(self, account: str, warning: CapWarning) -> Crossed:
        return Crossed(self.names[account][warning.scope, warning.cap_id], warning.scope, warning.action)

    def seqs(self, account: str) -> dict[str, int]:
        return {entry.transaction_id: entry.seq for entry in self.entries.get(account, ())}

    def read_journals(self) -> None:
        """Take in what was journalled since the last look."""
        for partition in self.store.partitions():
            after = self.seen.get(partition, b"0-0")
            for entry_id, fields in self.client.xrange(self.store.namespace.journal(partition), b"(" + after):
                entry = decode_entry(partition, entry_id.decode(), fields[ENTRY_FIELD])
                self.entries.setdefault(entry.account, []).append(entry)
                self.seen[partition] = entry_id

    def read_names(self, account: str) -> None:
        """Learn which cap of the model each id names; a cap keeps its id."""
        fields = self.fields(account)
        names = stored.names_of(self.model.account(account), fields)
        known = self.names.setdefault(account, {})
        assert {(scope, number): cap_id for (scope, cap_id), number in known.items() if number in names.values()} == {
            (scope, number): cap_id for (scope, cap_id), number in names.items() if number in known.values()
        }, "a cap has another id"
        known.update(names)

    def fields(self, account: str) -> dict[str, str]:
        return text(self.client.hgetall(self.store.namespace.account(account).keys[0]))

    @invariant()
    def count_steps(self) -> None:
        self.steps += 1

    @invariant()
    def journal_is_the_model_s(self) -> None:
        """Every entry is the model's."""
        self.read_journals()
        for name, account in self.model.accounts.items():
            entries = self.entries.get(name, [])
            assert [entry.seq for entry in entries] == list(range(1, account.seq + 1))
        for name in {entry.account for entry in self.model.journal[self.compared :]}:
            self.read_names(name)
            expected = [entry for entry in self.model.journal[self.compared :] if entry.account == name]
            made = self.entries[name][expected[0].seq - 1 :]
            for entry, wanted in zip(made, expected, strict=True):
                given = stored.entry_of(entry, self.names[name], self.seqs(name))
                assert given == in_order(wanted), (given, in_order(wanted))
        self.compared = len(self.model.journal)

    @invariant()
    def state_is_the_model_s(self) -> None:
        """Every field and every lease is the model's, and what folding the journal gives."""
        for name, account in self.model.accounts.items():
            keys = self.store.namespace.account(name).keys
            kept = AccountState(self.fields(name), text(self.client.hgetall(keys[1])))
            folded = AccountState.fold(self.entries.get(name, []))
            assert (kept.fields, kept.leases) == (folded.fields, folded.leases)
            assert (kept.balance, kept.held, kept.seq) == (account.balance, account.held, account.seq)
            assert int(kept.fields.get("activation", 0)) == account.activation
            assert kept.fields.get("due", "") == ("" if account.due is None else str(account.due))
            assert self.client.zscore(keys[3], name) == account.due
            given, wanted = stored.stored_extras(kept.fields, self.model.now), stored.extras_of(account, self.model.now)
            for what in wanted:
                assert given[what] == wanted[what], (name, what, given[what], wanted[what])
            refunded = {self.seqs(name)[field[9:]]: int(value) for field, value in refunds(kept.fields)}
            assert refunded == account.refunded
            caps = self.names.get(name, {})
            assert {lease_id: stored.stored_lease(record, caps) for lease_id, record in kept.leases.items()} == {
                lease_id: stored.lease_of(lease) for lease_id, lease in account.leases.items()
            }

    @invariant()
    def money_adds_up(self) -> None:
        """What must hold whatever happened; of the model, which is the store's."""
        for name, account in self.model.accounts.items():
            check_account(account, self.model.now, self.lowest.get(name, 0))
        charged = {(entry.account, entry.seq): entry.paid.total for entry in self.model.journal}
        for name, account in self.model.accounts.items():
            for seq, refunded in account.refunded.items():
                assert 0 < refunded <= charged[name, seq]


def check_account(account: Account, now: int, floor: int) -> None:
    open_leases = [lease for lease in account.leases.values() if lease.open]
    grants = account.grants.values()
    assert account.balance == account.pool + sum(grant.remaining for grant in grants)
    assert all(grant.remaining > 0 for grant in grants)
    assert account.available >= floor, (account.available, floor)
    applied = [grant for grant in grants if grant.expired(now) and (account.due is None or grant.expires < account.due)]
    assert sum(grant.remaining for grant in applied) <= account.held, "expired grants that no lease rests on"
    if account.period is not None:
        assert account.period.held == sum(
            lease.allowance for lease in open_leases if lease.period == account.period.number
        )
        assert account.period.used >= 0, "allowance"
    for cap in account.caps:
        held = [record for lease in open_leases for record in (*lease.caps, *lease.lent) if record.cap == cap.number]
        assert cap.held == sum(record.amount for record in held), (cap, held)
        assert cap.used >= 0, "cap"
        assert all(amount >= 0 for amount in cap.buckets.values())


def in_order(entry: Entry) -> Entry:
    """The entry, without what has no order."""
    operation_type = "" if entry.operation_type == "default" else entry.operation_type
    return replace(
        entry,
        counted=tuple(sorted(entry.counted, key=str)),
        crossed=tuple(sorted(entry.crossed, key=str)),
        operation_type=operation_type,
    )


def words_of(error: Exception, wanted: Any) -> tuple[Any, ...]:
    """A refusal in the words of the model; anything else is raised again."""
    match error:
        case InsufficientCreditsError() if error.parent is not None:
            numbers = (error.needed, error.available, error.held)
            return ("budget", error.parent, *(to_signed_micro(number) for number in numbers))
        case InsufficientCreditsError():
            numbers = (error.needed, error.available, error.held, error.floor, error.allowance)
            return ("insufficient", *(to_signed_micro(number) for number in numbers))
        case CapReachedError():
            numbers = error.limit, error.used, error.held
            end = in_milliseconds(error.window_end) if error.window_end else 0
            micro = (to_signed_micro(number) for number in numbers)
            return (
                "cap", error.account, error.cap_id, error.scope, error.window, *micro, end, micro_of(error.needed)
            )  # fmt: skip
        case ConcurrencyLimitError():
            return ("concurrency", error.limit, error.running)
        case AccountFrozenError():
            return ("frozen", error.reason)
        case MemberNotFoundError():
            return ("not_member", error.member)
        case TeamNotFoundError():
            return ("not_team",)
        case CapNotFoundError():
            return ("no_cap",)
        case RefundError():
            return ("refund_exceeds",)
        case TermsNeeded():
            return ("terms", error.plan, error.assigned_ms, error.time_zone, error.now_ms, error.windows)
        case LeaseClosedError():
            return ("closed", error.how)
        case StalePricing():
            return ("stale", error.activation)
        case RepriceLease():
            return ("reprice", error.version, error.plan)
        case IdempotencyConflictError():
            return ("conflict",)
        case LeaseNotFoundError():
            return ("not_found",)
        case LeaseExpiredError():
            return ("expired",)
        case InvalidAmountError():
            return ("over_limit",)
        case ConfigError():
            return ("past",) if "the time is in the past" in str(error) else ("config",)
    raise error


def micro_of(amount: Decimal) -> int:
    return to_signed_micro(amount)


def in_milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def refunds(fields: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in fields.items() if name.startswith("refunded/")]


def text(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}
