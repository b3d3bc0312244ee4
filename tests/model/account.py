"""What the model keeps of an account. Amounts are micro-credits, times milliseconds."""

import copy
from dataclasses import dataclass, field
from typing import Any

LIMIT = 2**53 - 1
DAY = 24 * 3600 * 1000
DEFAULT_PRIORITY = 50

Answer = dict[str, Any]


class Refused(Exception):
    """The operation was refused, and changed nothing. The word for it comes first, then the details."""

    @property
    def word(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Part:
    """What one grant paid of a charge."""

    number: int
    amount: int
    expires: int
    priority: int
    type: str


@dataclass(frozen=True)
class Paid:
    """Who paid for a charge: the allowance of a period, grants in the order in which they did, the pool."""

    allowance: int = 0
    period: int = 0
    grants: tuple[Part, ...] = ()
    pool: int = 0

    @property
    def from_balance(self) -> int:
        return self.pool + sum(part.amount for part in self.grants)

    @property
    def total(self) -> int:
        return self.allowance + self.from_balance


@dataclass(frozen=True)
class Counted:
    """What was counted, or is held, of an amount in one spend cap."""

    cap: int
    scope: str
    amount: int


@dataclass(frozen=True)
class Crossed:
    """A spend cap whose limit was passed for the first time in its window."""

    cap: int
    scope: str
    action: str


@dataclass(frozen=True)
class Entry:
    """A change, as it must stand in the journal."""

    operation: str
    account: str
    seq: int
    operation_key: str
    amount: int = 0
    balance_change: int = 0
    shortfall: int = 0
    version: int = 0
    paid: Paid = Paid()
    counted: tuple[Counted, ...] = ()
    crossed: tuple[Crossed, ...] = ()
    low: tuple[int, ...] = ()
    member: str = ""
    plan: str = ""
    operation_type: str = ""
    refund_of: int = 0
    """The seq of the charge."""
    lost: int = 0
    late: bool = False
    at: int = field(default=0, compare=False)


@dataclass
class Grant:
    number: int
    remaining: int
    expires: int
    """0: never."""
    priority: int
    type: str
    amount: int
    added: int

    def expired(self, now: int) -> bool:
        return 0 < self.expires <= now


@dataclass
class Plan:
    """The plan that an account is assigned, as its terms were last taken."""

    id: str
    assigned: int
    time_zone: str
    activation: int
    scopes: tuple[str, ...]


@dataclass
class Period:
    """The allowance's period that runs, or ran last. `number` tells it from all others of the account."""

    number: int
    start: int
    end: int
    limit: int
    rolled: int = 0
    used: int = 0
    held: int = 0

    def left(self, now: int) -> int:
        return self.rest if now < self.end else 0

    @property
    def rest(self) -> int:
        return max(0, self.limit + self.rolled - self.used - self.held)


@dataclass
class Cap:
    number: int
    """The model's own name for it."""
    scope: str
    source: str
    window: str
    rolling: bool
    action: str
    time_zone: str
    limit: int
    used: int = 0
    held: int = 0
    start: int = 0
    end: int = 0
    raised: int | None = None
    raised_until: int = 0
    crossed: bool = False
    buckets: dict[int, int] = field(default_factory=dict)

    @property
    def calendar(self) -> bool:
        return not self.rolling and self.window != "total"

    @property
    def kind(self) -> tuple[str, bool, str, str]:
        """What makes two caps of a scope the same."""
        return self.window, self.rolling, self.time_zone, self.action

    def limit_at(self, now: int) -> int:
        return self.raised if self.raised is not None and now < self.raised_until else self.limit


@dataclass
class Member:
    role: str
    joined: int
    spent: int = 0


@dataclass
class Lease:
    amount: int
    created: int
    expires: int
    floor: int
    version: int
    on_expiry: str
    fingerprint: str
    operation_type: str = "default"
    member: str = ""
    models: tuple[tuple[str, int], ...] = ()
    plan: str = ""
    allowance: int = 0
    """The part of the amount that rests on the allowance."""
    period: int = 0
    caps: tuple[Counted, ...] = ()
    """What is held of it in spend caps."""
    parents: tuple[tuple[str, int], ...] = ()
    """The leases that it is inside of, the nearest first, and when each was created."""
    lent: tuple[Counted, ...] = ()
    """What it holds in spend caps in its parent's place."""
    opened: int = 0
    """The seq of the change that opened it."""
    open: bool = True
    paid: Paid = Paid()
    """What its expiry charged."""
    paid_at: int = 0
    counted: tuple[Counted, ...] = ()
    """What its expiry counted towards spend caps."""

    @property
    def charged(self) -> int:
        return self.paid.total

    @property
    def on_balance(self) -> int:
        """The part of the amount that rests on the balance."""
        return self.amount - self.allowance

    @property
    def due(self) -> int:
        """When something happens to it by itself: it expires, or is forgotten a day later."""
        return self.expires if self.open else self.expires + DAY


@dataclass
class Account:
    name: str
    balance: int = 0
    seq: int = 0
    activation: int = 0
    due: int | None = None
    leases: dict[str, Lease] = field(default_factory=dict)
    grants: dict[int, Grant] = field(default_factory=dict)
    plan: Plan | None = None
    period: Period | None = None
    caps: list[Cap] = field(default_factory=list)
    caps_made: int = 0
    taken: dict[str, int] = field(default_factory=dict)
    """The activation under which each scope took the plan's caps."""
    frozen: str = ""
    low: set[int] = field(default_factory=set)
    team: str | None = None
    members: dict[str, Member] = field(default_factory=dict)
    refunded: dict[int, int] = field(default_factory=dict)
    """Micro-credits refunded so far, by the seq of the charge."""
    extras: bool = False
    """Whether it ever had some of what only some accounts have."""
    opening: int | None = None
    """The bonus of a new account, until its entry is journalled."""
    answers: dict[str, tuple[str, Answer]] = field(default_factory=dict)
    closed: dict[str, tuple[str, str, Answer]] = field(default_factory=dict)

    @property
    def next_seq(self) -> int:
        """Of the change that is being made; a new account's opening comes before it."""
        return self.seq + (1 if self.opening is None else 2)

    @property
    def held(self) -> int:
        return sum(lease.on_balance for lease in self.leases.values() if lease.open)

    @property
    def available(self) -> int:
        return self.balance - self.held

    @property
    def pool(self) -> int:
        return self.balance - sum(grant.remaining for grant in self.grants.values())

    def standing(self) -> Answer:
        return {"balance": self.balance, "available": self.available}

    def snapshot(self) -> dict[str, Any]:
        """What a refusal puts back."""
        shared = {"answers": dict(self.answers), "closed": dict(self.closed)}
        return {**copy.deepcopy({k: v for k, v in vars(self).items() if k not in shared}), **shared}

    def restore(self, snapshot: dict[str, Any]) -> None:
        vars(self).update(snapshot)
