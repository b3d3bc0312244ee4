"""One operation: what is sent, how its reply is read, and the values that calls and replies are made of.

Every amount here is in micro-credits and every time in milliseconds.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from ducto_redis.engine.replies import failure
from ducto_redis.engine.scripts import Script
from ducto_redis.results import Lease, PricingVersion

R = TypeVar("R")

CALLERS_KEY = "key/"
"""What begins the operation key of a call that the caller gave an idempotency key."""


class OperationKey(Struct, frozen=True):
    """What makes a call the same when it is made again.

    Attributes:
        text: `key/<the caller's idempotency key>`, or `call/<random>` for a call without one.
        kept_ms: how long the first answer is remembered.
        fingerprint: of what the caller passed; empty where only the call itself can repeat the key.
    """

    text: str
    kept_ms: int
    fingerprint: str = ""

    @property
    def for_callers(self) -> str:
        """The idempotency key that repeats the call."""
        return self.text.removeprefix(CALLERS_KEY)


class Price(Struct, frozen=True):
    """An amount, and the pricing document that it was computed under (version and activation 0: none)."""

    amount: int
    version: int = 0
    activation: int = 0


class LeaseTerms(Struct, frozen=True):
    """What a lease is opened with, besides its price.

    Attributes:
        floor: how low the account's available credits may go.
        ttl_ms: how long it holds.
        on_expiry: `release` or `charge`.
        operation_type, owner: who holds it and for what, for people who list leases.
        metadata: JSON, or empty.
        fingerprint: of what the caller passed; empty for a lease id that was made for the call.
    """

    floor: int
    ttl_ms: int
    on_expiry: str
    operation_type: str
    owner: str
    metadata: bytes
    fingerprint: str


class Page(Struct, frozen=True):
    """Some of an account's leases, and the cursor of the next page (0: there is none)."""

    leases: list[Lease]
    cursor: int


class Sweep(Struct, frozen=True):
    """What a sweep of one account did."""

    expired: int
    more: bool


class PricingState(Struct, frozen=True):
    """The active pricing document, and the one that was asked for."""

    active: int
    activation: int
    latest: int
    asked: PricingVersion


class PartitionRecord(Struct, frozen=True):
    """A partition's own record, `meta`. `groups` are the registered consumer groups."""

    namespace_id: str
    state: str
    epoch: int
    partitions: int
    groups: tuple[str, ...]


class Operation(Generic[R]):
    """One atomic step against the engine: a script, its keys, its arguments, and how to read its reply.

    `account`, `operation_key` and `lease_id` name what it is about, for errors; `operation_key` is what the caller can
    repeat the call with: an idempotency key, or a lease id.
    """

    __slots__ = ("account", "args", "keys", "lease_id", "operation_key", "partition", "read", "script")

    def __init__(
        self,
        script: Script,
        partition: int,
        keys: tuple[bytes, ...],
        args: tuple[str | bytes | int, ...],
        read: "Callable[[Operation[R], Any], R]",
        *,
        account: str = "",
        operation_key: str | None = None,
        lease_id: str = "",
    ) -> None:
        self.script = script
        self.partition = partition
        self.keys = keys
        self.args = args
        self.read = read
        self.account = account
        self.operation_key = operation_key
        self.lease_id = lease_id

    def result(self, reply: Any) -> R:
        """The result that the reply says, or the error, raised. MoreIsDue asks for the same operation again."""
        return self.read(self, reply)

    def parts(self, reply: bytes) -> list[bytes]:
        """The parts of a reply that is one string. Raises what a refusal means."""
        parts = reply.split(b"\t")
        if parts[0] != b"ok" and parts[0] != b"replayed":
            raise self.failure(parts)
        return parts

    def failure(self, parts: Sequence[bytes]) -> Exception:
        """The error that a refusal means."""
        return failure(parts, account=self.account, operation_key=self.operation_key or "", lease_id=self.lease_id)
