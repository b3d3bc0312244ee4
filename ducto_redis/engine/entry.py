"""The journal entry: one change to one account, and the lease records inside it.

The text is written by `lua/lib/account.lua` and read here, and nowhere else.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

from msgspec import Struct

from ducto_redis.engine.cause import Cause, decode_cause
from ducto_redis.engine.ids import entry_ms, format_transaction_id
from ducto_redis.engine.text import ITEM_SEPARATOR, LIST_SEPARATOR, RECORD_SEPARATOR

ENTRY_FIELD = b"entry"
_SEPARATOR = "\t"
_HEAD = 11
_LEASE_PARTS = 14
_GROUND_PARTS = 7
_GROUND_PARTS_INSIDE = 9
LEASE_CHANGE = "lease/"


class UnreadableEntryError(ValueError):
    """A journal entry that is not one. `account` is the account that it names, where so much could be read."""

    def __init__(self, message: str, *, account: str | None = None) -> None:
        self.account = account
        super().__init__(message)


class JournalEntry(Struct, frozen=True):
    """One change to one account.

    Attributes:
        partition: where it was journalled.
        entry_id: the id of the stream's entry; its first part is the time in milliseconds.
        operation: `deduct`, `settle`, ...
        account: whose change it is.
        epoch, seq: its place in the account's history; seq counts up by 1.
        operation_key: what makes the operation the same when it is asked for again.
        amount: micro-credits that the operation was about: added, held, released, deducted, or what settled work cost.
        balance_change: micro-credits by which the balance moved.
        shortfall: micro-credits of the cost that could not be charged.
        version: pricing document that it was priced under, 0 for none.
        cause: JSON of a `Cause`, or empty, see `engine/cause.py`.
        details: names and values of what a charge was paid from, what it counted towards and what it crossed, see
            `Details`; empty for a charge of a plain account.
        changes: the new value of every field that was written, `lease/<id>` among them ("" where the lease is gone). Of
            several leases the first is the one that the entry is about; it is inside of the others.
    """

    partition: int
    entry_id: str
    operation: str
    account: str
    epoch: int
    seq: int
    operation_key: str
    amount: int
    balance_change: int
    shortfall: int
    version: int
    cause: str
    details: str
    changes: tuple[tuple[str, str], ...]

    @property
    def transaction_id(self) -> str:
        """Partition, epoch and entry id: `3-1-1700000000000-0`."""
        return format_transaction_id(self.partition, self.epoch, self.entry_id)

    @property
    def time_ms(self) -> int:
        """The time of the change, in milliseconds since 1970, by the server's clock."""
        return entry_ms(self.entry_id)

    def read_cause(self) -> Cause:
        """Return the cause, decoded. Raises msgspec.DecodeError where it is none."""
        return decode_cause(self.cause)

    def read_details(self) -> "Details":
        """Return the details, decoded. Raises UnreadableEntryError."""
        return Details.decode(self.details)

    @property
    def lease(self) -> tuple[str, str] | None:
        """The id and the new record ("" where it is gone) of the lease that the entry is about; None for other ones."""
        for name, record in self.changes:
            if name.startswith(LEASE_CHANGE):
                return name[len(LEASE_CHANGE) :], record
        return None

    @property
    def charged(self) -> int:
        """Micro-credits that a deduct, a settle or an expiry charged, whoever paid for them; 0 for other operations."""
        if self.operation == "deduct":
            return self.amount
        if self.operation == "settle":
            return self.amount - self.shortfall
        if self.operation == "expire":
            return -self.balance_change + self.read_details().allowance
        return 0


class GrantPart(Struct, frozen=True):
    """A charge's share from one grant, with the grant's own terms, so that a refund can give it back."""

    number: int
    amount: int
    expires_ms: int
    priority: int
    type: str


class CapPart(Struct, frozen=True):
    """The amount counted towards one spend cap."""

    cap_id: str
    amount: int
    scope: str


class Crossing(Struct, frozen=True):
    """A spend cap whose limit a charge passed, for the first time in its window."""

    cap_id: str
    action: str
    scope: str


class Details(Struct, frozen=True, omit_defaults=True):
    """The sources of a charge, the caps that it counted towards and the levels it crossed. Amounts are micro-credits.

    Attributes:
        allowance, period: what the allowance paid, and the number of its period.
        grants: what grants paid, in the order in which they did; the rest came from the account's pool.
        caps: what was counted towards spend caps.
        crossed: caps that let it pass, though it took them over their limits.
        low: low-balance levels that it took the balance below.
        member: who spent it, of a team.
        operation_type: of a lease's charge; empty for the default.
        plan: the plan that it was priced under.
        refund_of: the transaction that was refunded.
        lost: of a refund, what could not be returned: its grant had expired, its allowance's period was over.
        late: whether the lease had expired.
        at_ms: of what the expiry of a lease charged, when that was; entries have their own time.
    """

    allowance: int = 0
    period: int = 0
    grants: tuple[GrantPart, ...] = ()
    caps: tuple[CapPart, ...] = ()
    crossed: tuple[Crossing, ...] = ()
    low: tuple[int, ...] = ()
    member: str = ""
    operation_type: str = ""
    plan: str = ""
    refund_of: str = ""
    lost: int = 0
    late: bool = False
    at_ms: int = 0

    @classmethod
    def decode(cls, text: str, separator: str = RECORD_SEPARATOR) -> "Details":
        """Read the details of an entry. Raises UnreadableEntryError."""
        if not text:
            return _NO_DETAILS
        parts = text.split(separator)
        try:
            return _read_details(zip(parts[::2], parts[1::2], strict=True))
        except ValueError as error:
            raise UnreadableEntryError(f"the details of a journal entry are wrong: {error}") from None

    def encode(self) -> str:
        """Return the text that `decode` reads, for stores that are not written in Lua."""
        pairs = [
            (f"grant/{part.number}", f"{part.amount} {part.expires_ms} {part.priority} {part.type}")
            for part in self.grants
        ]
        pairs += [(f"cap/{part.cap_id}", f"{part.amount} {part.scope}") for part in self.caps]
        pairs += [(f"crossed/{crossing.cap_id}", f"{crossing.action} {crossing.scope}") for crossing in self.crossed]
        pairs += [("low", str(level)) for level in self.low]
        if self.allowance:
            pairs.append(("allowance", f"{self.allowance} {self.period}"))
        single = {"member": self.member, "operation_type": self.operation_type, "plan": self.plan}
        single |= {"refund_of": self.refund_of, "lost": str(self.lost or ""), "late": "1" if self.late else ""}
        single["at"] = str(self.at_ms or "")
        pairs += [(name, value) for name, value in single.items() if value]
        return RECORD_SEPARATOR.join(chain.from_iterable(pairs))


def _read_details(pairs: Iterable[tuple[str, str]]) -> Details:
    single: dict[str, Any] = {}
    grants, caps, crossed, low = [], [], [], []
    for name, value in pairs:
        kind, _, number = name.partition("/")
        if kind == "grant":
            amount, expires_ms, priority, credits_type = value.split(" ", 3)
            grants.append(GrantPart(int(number), int(amount), int(expires_ms), int(priority), credits_type))
        elif kind == "cap":
            amount, scope = value.split(" ", 1)
            caps.append(CapPart(number, int(amount), scope))
        elif kind == "crossed":
            action, scope = value.split(" ", 1)
            crossed.append(Crossing(number, action, scope))
        elif name == "low":
            low.append(int(value))
        elif name == "allowance":
            amount, period = value.split(" ")
            single["allowance"], single["period"] = int(amount), int(period)
        elif name == "lost":
            single["lost"] = int(value)
        elif name == "at":
            single["at_ms"] = int(value)
        elif name == "late":
            single["late"] = value == "1"
        elif name in ("member", "operation_type", "plan", "refund_of"):
            single[name] = value
        else:
            raise ValueError(f"there is no detail {name!r:.40}")
    return Details(grants=tuple(grants), caps=tuple(caps), crossed=tuple(crossed), low=tuple(low), **single)


_NO_DETAILS = Details()


class LeaseGrounds(Struct, frozen=True):
    """A lease's terms besides the balance: all empty for a plain account's lease that is inside no other.

    Attributes:
        allowance, period: the part of its amount that rests on the allowance, and the number of that period.
        plan: the plan that it was priced under.
        member: who holds it, of a team.
        models: what each model's part of it is, in micro-credits.
        caps: what is held of it in each spend cap.
        paid: what its expiry charged, and from where.
        parents: the leases that it is inside of, the nearest first: the id of each, and when it was created.
        lent: what it holds in spend caps in place of its parent; `caps` is beside that.
    """

    allowance: int = 0
    period: int = 0
    plan: str = ""
    member: str = ""
    models: tuple[tuple[str, int], ...] = ()
    caps: tuple[CapPart, ...] = ()
    paid: Details = _NO_DETAILS
    parents: tuple[tuple[str, int], ...] = ()
    lent: tuple[CapPart, ...] = ()

    @property
    def parent(self) -> str | None:
        """The id of the lease that it was opened inside of, or None."""
        return self.parents[0][0] if self.parents else None

    @classmethod
    def decode(cls, text: str) -> "LeaseGrounds":
        """Read the grounds of a lease's record. Raises UnreadableEntryError."""
        if not text:
            return _NO_GROUNDS
        parts = text.split(LIST_SEPARATOR)
        if len(parts) not in (_GROUND_PARTS, _GROUND_PARTS_INSIDE):
            raise UnreadableEntryError(
                f"the grounds of a lease have {_GROUND_PARTS} or {_GROUND_PARTS_INSIDE} parts, got {len(parts)}"
            )
        models = parts[4].split(ITEM_SEPARATOR) if parts[4] else []
        parents = parts[7].split(ITEM_SEPARATOR) if len(parts) > _GROUND_PARTS and parts[7] else []
        try:
            return cls(
                int(parts[0]),
                int(parts[1]),
                parts[2],
                parts[3],
                tuple((name, int(amount)) for name, amount in zip(models[::2], models[1::2], strict=True)),
                _read_caps(parts[5]),
                Details.decode(parts[6], ITEM_SEPARATOR),
                tuple((name, int(created)) for name, created in zip(parents[::2], parents[1::2], strict=True)),
                _read_caps(parts[8]) if len(parts) > _GROUND_PARTS else (),
            )
        except ValueError as error:
            raise UnreadableEntryError(f"the grounds of a lease are wrong: {error}") from None


def _read_caps(text: str) -> tuple[CapPart, ...]:
    parts = text.split(ITEM_SEPARATOR) if text else []
    return tuple(
        CapPart(cap_id, int(amount), scope)
        for scope, cap_id, amount in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    )


_NO_GROUNDS = LeaseGrounds()


class LeaseRecord(Struct, frozen=True):
    """A lease as it is stored, see `lua/lib/lease.lua`. Amounts are micro-credits, times milliseconds."""

    state: str
    amount: int
    charged: int
    created_ms: int
    expires_ms: int
    floor: int
    version: int
    on_expiry: str
    fingerprint: str
    grounds: str
    operation_type: str
    owner: str
    metadata: str
    entry_id: str

    @property
    def balance_part(self) -> int:
        """Micro-credits of its amount that rest on the balance; the others rest on the plan's allowance."""
        return self.amount - LeaseGrounds.decode(self.grounds).allowance

    @classmethod
    def decode(cls, text: str) -> "LeaseRecord":
        """Read a record. Raises UnreadableEntryError."""
        parts = text.split(RECORD_SEPARATOR)
        if len(parts) != _LEASE_PARTS:
            raise UnreadableEntryError(f"a lease record has {_LEASE_PARTS} parts, got {len(parts)}")
        state, *numbers = parts[:7]
        try:
            amount, charged, created_ms, expires_ms, floor, version = map(int, numbers)
        except ValueError as error:
            raise UnreadableEntryError(f"a lease record holds a number that is none: {error}") from None
        return cls(state, amount, charged, created_ms, expires_ms, floor, version, *parts[7:])


def decode_entry(partition: int, entry_id: str, text: bytes) -> JournalEntry:
    """Read a journal entry. Raises UnreadableEntryError, which names the account where it could be read."""
    try:
        parts = text.decode().split(_SEPARATOR)
    except UnicodeDecodeError as error:
        raise UnreadableEntryError(f"a journal entry is not UTF-8: {error}") from None
    account = parts[1] if len(parts) > 1 and parts[1] else None
    if account is None or len(parts) < _HEAD or (len(parts) - _HEAD) % 2:
        raise UnreadableEntryError(
            f"a journal entry has {_HEAD} parts and pairs of changes, got {len(parts)}", account=account
        )
    try:
        return JournalEntry(
            partition,
            entry_id,
            parts[0],
            account,
            int(parts[2]),
            int(parts[3]),
            parts[4],
            int(parts[5]),
            int(parts[6]) if parts[6] else -int(parts[5]),
            int(parts[7]),
            int(parts[8]),
            parts[9],
            parts[10],
            tuple(zip(parts[11::2], parts[12::2], strict=True)),
        )
    except ValueError as error:
        raise UnreadableEntryError(f"a journal entry holds a number that is none: {error}", account=account) from None
