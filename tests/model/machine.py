"""Drives the model and a store side by side with random operations, and compares every reply and the whole state."""

import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ducto_redis.driving import drive
from ducto_redis.engine.entry import ENTRY_FIELD, JournalEntry, LeaseRecord, decode_entry
from ducto_redis.engine.operation import LeaseTerms, OperationKey, Price
from ducto_redis.engine.operations import Operations
from ducto_redis.engine.scripts import Scripts, load_scripts, read_sources
from ducto_redis.engine.state import AccountState
from ducto_redis.errors import (
    IdempotencyConflictError,
    InsufficientCreditsError,
    InvalidAmountError,
    LeaseClosedError,
    LeaseExpiredError,
    LeaseNotFoundError,
    RepriceLease,
    StalePricing,
)
from ducto_redis.money import to_signed_micro
from ducto_redis.store.script_store import ScriptStore
from tests.model.model import DAY, LIMIT, Answer, Entry, Lease, Model, Refused

START = 1_700_000_000_000
SECOND = 1000
BY_ITSELF = ("expire", "forget", "sweep")

ACCOUNTS = st.sampled_from(["u1", "u1", "u1", "{u}:2"])
NEW_LEASES = st.integers(0, 12).map("lease {}".format)
NO_LEASE = 15
LEASES = st.integers(0, NO_LEASE)
"""Which lease, see `SideBySide.pick`."""
KEYS = st.integers(0, 15).map("key/{}".format)
FINGERPRINTS = st.sampled_from(["this"] * 7 + ["that"])
AMOUNTS = st.integers(0, 999).map(lambda number: number % 32 if number < 970 else LIMIT - number + 970)
ADDED = st.integers(0, 999).map(lambda number: number % 30 + 1 if number < 970 else LIMIT - number + 970)
"""Small ones mostly, and some next to the limit."""
FLOORS = st.sampled_from([0] * 6 + [10, -20, -20, -LIMIT])
VERSIONS = st.sampled_from([0, 0, 0, 1, 2])
TTLS = st.sampled_from([1, 10 * SECOND, 60 * SECOND, DAY])
STEPS = st.sampled_from([1, 10 * SECOND, 60 * SECOND, DAY, DAY + 60 * SECOND, 3 * DAY])


def scripts_at(now: int, *, sources: dict[str, str] | None = None, shebang: bool = False) -> Scripts:
    """The scripts with a clock that stands still."""
    stopped = {**(sources or read_sources()), "lib/now": f"local function now()\n  return {now}\nend\n"}
    return load_scripts(sources=stopped, shebang=shebang)


def has_leases(machine: "SideBySide") -> bool:
    """Whether some account has or had a lease: most steps on none would be the same refusal."""
    return any(account.leases or account.closed for account in machine.model.accounts.values())


class SideBySide(RuleBasedStateMachine):
    """The model and a store; a subclass says which store, and with which scripts."""

    make_store: Callable[[], ScriptStore]
    sources: dict[str, str] | None = None
    shebang = False

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(START)
        self.store = type(self).make_store()
        self.client = self.store.redis()
        self.seen: dict[int, bytes] = {}
        self.entries: dict[str, list[JournalEntry]] = {}
        self.compared = 0
        self.set_clock()

    @initialize()
    def create(self) -> None:
        drive(self.store.create_namespace())
        self.add_credits("u1", 60, "key/first", "this")

    def teardown(self) -> None:
        drive(self.store.close())

    def set_clock(self) -> None:
        scripts = scripts_at(self.model.now, sources=self.sources, shebang=self.shebang)
        self.store.operations = Operations(self.store.namespace, scripts)

    @rule(milliseconds=STEPS)
    def time_passes(self, milliseconds: int) -> None:
        self.model.now += milliseconds
        self.set_clock()

    @rule(account=ACCOUNTS, amount=ADDED, key=KEYS, fingerprint=FINGERPRINTS)
    def add_credits(self, account: str, amount: int, key: str, fingerprint: str) -> None:
        fingerprint = f"add {fingerprint}"
        self.compare(
            lambda: self.model.add_credits(account, amount, key, fingerprint),
            self.store.add_credits(account, amount, OperationKey(key, DAY, fingerprint), cause=b""),
        )

    @rule(account=ACCOUNTS, amount=AMOUNTS, key=KEYS, fingerprint=FINGERPRINTS, floor=FLOORS, version=VERSIONS)
    def deduct(self, account: str, amount: int, key: str, fingerprint: str, floor: int, version: int) -> None:
        fingerprint = f"deduct {fingerprint}"
        price = Price(amount, version, version)
        self.compare(
            lambda: self.model.deduct(account, amount, key, fingerprint, floor, version, version),
            self.store.deduct(account, price, OperationKey(key, DAY, fingerprint), floor=floor, cause=b""),
        )

    @rule(
        account=ACCOUNTS,
        lease_id=NEW_LEASES,
        amount=AMOUNTS,
        floor=FLOORS,
        ttl=TTLS,
        on_expiry=st.sampled_from(["release", "charge"]),
        fingerprint=FINGERPRINTS,
        version=VERSIONS,
    )
    def reserve(
        self,
        account: str,
        lease_id: str,
        amount: int,
        floor: int,
        ttl: int,
        on_expiry: str,
        fingerprint: str,
        version: int,
    ) -> None:
        now = self.model.now
        lease = Lease(amount, now, now + ttl, floor, version, on_expiry, fingerprint)
        terms = LeaseTerms(floor, ttl, on_expiry, "chat", "owner", b"", fingerprint)
        self.compare(
            lambda: self.model.reserve(account, lease_id, lease, version),
            self.store.reserve(account, lease_id, Price(amount, version, version), terms, cause=b""),
        )

    @precondition(has_leases)
    @rule(number=LEASES, cost=st.integers(0, 90), fingerprint=FINGERPRINTS, version=VERSIONS)
    def settle(self, number: int, cost: int, fingerprint: str, version: int) -> None:
        account, lease_id = self.pick(number)
        self.compare(
            lambda: self.model.settle(account, lease_id, cost, fingerprint, version),
            self.store.settle(account, lease_id, Price(cost, version), fingerprint=fingerprint, cause=b""),
        )

    @precondition(has_leases)
    @rule(number=LEASES)
    def release(self, number: int) -> None:
        account, lease_id = self.pick(number)
        self.compare(lambda: self.model.release(account, lease_id), self.store.release(account, lease_id, cause=b""))

    @precondition(has_leases)
    @rule(number=LEASES, ttl=TTLS, key=KEYS, fingerprint=FINGERPRINTS)
    def renew(self, number: int, ttl: int, key: str, fingerprint: str) -> None:
        account, lease_id = self.pick(number)
        fingerprint = f"renew {lease_id} {fingerprint}"
        self.compare(
            lambda: self.model.renew(account, lease_id, ttl, key, fingerprint),
            self.store.renew(account, lease_id, OperationKey(key, DAY, fingerprint), ttl_ms=ttl),
        )

    @precondition(has_leases)
    @rule(number=LEASES, amount=AMOUNTS, key=KEYS, fingerprint=FINGERPRINTS, version=VERSIONS)
    def extend(self, number: int, amount: int, key: str, fingerprint: str, version: int) -> None:
        account, lease_id = self.pick(number)
        fingerprint = f"extend {lease_id} {fingerprint}"
        price = Price(amount, version)
        self.compare(
            lambda: self.model.extend(account, lease_id, amount, key, fingerprint, version),
            self.store.extend(account, lease_id, price, OperationKey(key, DAY, fingerprint), cause=b""),
        )

    @rule(account=ACCOUNTS)
    def look(self, account: str) -> None:
        self.compare(lambda: self.model.get_balance(account), self.store.get_balance(account))
        page = drive(self.store.list_leases(account))
        listed = {
            lease.lease_id: (to_signed_micro(lease.amount), round(lease.expires_at.timestamp() * 1000))
            for lease in page.leases
        }
        assert listed == self.model.list_leases(account)

    @rule()
    def sweep(self) -> None:
        expected = self.model.sweep()
        swept = [drive(self.store.sweep_partition(partition)) for partition in self.store.partitions()]
        assert sum(sweep.accounts for sweep in swept) == expected["accounts"]
        assert sum(sweep.leases_expired for sweep in swept) == expected["leases_expired"]

    def pick(self, number: int) -> tuple[str, str]:
        """An account and a lease of its: one that is there, now and then one that was closed, or none."""
        accounts = self.model.accounts.values()
        there = sorted((account.name, lease_id) for account in accounts for lease_id in account.leases)
        closed = sorted((account.name, lease_id) for account in accounts for lease_id in account.closed)
        if number == NO_LEASE:
            return "u1", "none"
        known = (there or closed) if number % 4 else (closed or there)
        return known[number % len(known)]

    def compare(self, expected: Callable[[], Answer], work: Coroutine[Any, Any, Any]) -> None:
        """Both answer the same, or both refuse for the same reason."""
        try:
            answer: Any = expected()
        except Refused as refused:
            answer = refused.args
        try:
            result = drive(work)
        except Exception as error:  # what is no refusal is raised again there
            given: Any = words_of(error)
        else:
            self.read_journals()
            given = self.answer_of(result, answer) if isinstance(answer, dict) else result
        assert given == answer

    def answer_of(self, result: Any, wanted: Answer) -> Answer:
        """The result in the words of the model."""
        answer: Answer = {}
        for name in wanted:
            match name:
                case "transaction":
                    entry = next(
                        entry for entry in self.entries[result.account] if entry.transaction_id == result.transaction_id
                    )
                    answer[name] = entry.seq
                case "expires":
                    answer[name] = round(result.expires_at.timestamp() * 1000)
                case "balance":
                    balance = result.balance if hasattr(result, "balance") else result.balance_after
                    answer[name] = to_signed_micro(balance)
                case "amount" | "available" | "shortfall" | "held":
                    answer[name] = to_signed_micro(getattr(result, name))
                case _:
                    answer[name] = getattr(result, name)
        return answer

    def read_journals(self) -> None:
        """Take in what was journalled since the last look."""
        for partition in self.store.partitions():
            after = self.seen.get(partition, b"0-0")
            for entry_id, fields in self.client.xrange(self.store.namespace.journal(partition), b"(" + after):
                entry = decode_entry(partition, entry_id.decode(), fields[ENTRY_FIELD])
                self.entries.setdefault(entry.account, []).append(entry)
                self.seen[partition] = entry_id

    @invariant()
    def journal_is_the_model_s(self) -> None:
        """Every entry is the model's; what fell due at the same moment has no order of its own."""
        self.read_journals()
        for name, account in self.model.accounts.items():
            entries = self.entries.get(name, [])
            assert [entry.seq for entry in entries] == list(range(1, account.seq + 1))
        for name in {entry.account for entry in self.model.journal[self.compared :]}:
            expected = [entry for entry in self.model.journal[self.compared :] if entry.account == name]
            made = [as_model(entry) for entry in self.entries[name][expected[0].seq - 1 :]]
            assert unordered(made) == unordered(expected)
        self.compared = len(self.model.journal)

    @invariant()
    def state_is_the_model_s(self) -> None:
        """Every field and every lease is the model's, and what folding the journal gives."""
        for name, account in self.model.accounts.items():
            keys = self.store.namespace.account(name).keys
            stored = AccountState(text(self.client.hgetall(keys[0])), text(self.client.hgetall(keys[1])))
            folded = AccountState.fold(self.entries.get(name, []))
            assert (stored.fields, stored.leases) == (folded.fields, folded.leases)
            assert (stored.balance, stored.held, stored.seq) == (account.balance, account.held, account.seq)
            assert int(stored.fields.get("activation", 0)) == account.activation
            assert stored.fields.get("due", "") == ("" if account.due is None else str(account.due))
            due = self.client.zscore(keys[3], name)
            assert due == account.due
            assert {lease_id: lease_of(record) for lease_id, record in stored.leases.items()} == {
                lease_id: (
                    lease.open,
                    lease.amount,
                    lease.charged,
                    lease.created,
                    lease.expires,
                    lease.floor,
                    lease.version,
                )
                for lease_id, lease in account.leases.items()
            }


def words_of(error: Exception) -> tuple[Any, ...]:
    """A refusal in the words of the model; anything else is raised again."""
    match error:
        case InsufficientCreditsError():
            numbers = (error.needed, error.available, error.held, error.floor)
            return ("insufficient", *(to_signed_micro(number) for number in numbers))
        case LeaseClosedError():
            return ("closed", error.how)
        case StalePricing():
            return ("stale", error.activation)
        case RepriceLease():
            return ("reprice", error.version)
        case IdempotencyConflictError():
            return ("conflict",)
        case LeaseNotFoundError():
            return ("not_found",)
        case LeaseExpiredError():
            return ("expired",)
        case InvalidAmountError():
            return ("over_limit",)
    raise error


def as_model(entry: JournalEntry) -> Entry:
    return Entry(
        entry.operation,
        entry.account,
        entry.seq,
        entry.operation_key,
        entry.amount,
        entry.balance_change,
        entry.shortfall,
        entry.version,
    )


def unordered(entries: list[Entry]) -> list[Any]:
    """The entries, where those of what fell due at once are a set without their seq."""
    grouped: list[Any] = []
    for by_itself, group in itertools.groupby(entries, lambda entry: entry.operation in BY_ITSELF[:2]):
        if by_itself:
            grouped.append(
                {(entry.operation, entry.operation_key, entry.amount, entry.balance_change) for entry in group}
            )
        else:
            grouped += group
    return grouped


def lease_of(record: str) -> tuple[Any, ...]:
    lease = LeaseRecord.decode(record)
    return (
        lease.state == "open",
        lease.amount,
        lease.charged,
        lease.created_ms,
        lease.expires_ms,
        lease.floor,
        lease.version,
    )


def text(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}
