"""Readers of scripts' replies: each returns a result, or raises the error of a refusal."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, TypedDict

from ducto_redis.engine.description import describe
from ducto_redis.engine.entry import Details, LeaseGrounds, LeaseRecord
from ducto_redis.engine.ids import format_transaction_id
from ducto_redis.engine.operation import Operation, Page, PartitionRecord, PricingState, Sweep
from ducto_redis.engine.text import time_of
from ducto_redis.money import from_micro
from ducto_redis.results import (
    ZERO,
    AccountChange,
    AccountDescription,
    AddResult,
    AdjustResult,
    Balance,
    CapWarning,
    DeductResult,
    ExtendResult,
    Lease,
    LeaseStatus,
    PricingVersion,
    RefundResult,
    ReleaseResult,
    RenewResult,
    ReserveResult,
    SettleResult,
)

GROUP_FIELD = "group/"
"""What begins the names of the fields of `meta` that register consumer groups."""


class _Change(TypedDict):
    transaction_id: str
    account: str
    amount: Decimal
    balance_after: Decimal
    available: Decimal
    replayed: bool


def _change(operation: Operation[Any], parts: Sequence[bytes]) -> _Change:
    """Return what all changes have in common. This is on the way of every charge: nothing is computed twice."""
    held, amount = parts[4], parts[5]
    balance = int(parts[3])
    balance_after = from_micro(balance)
    return {
        "transaction_id": f"{operation.partition}-{parts[1].decode()}-{parts[2].decode()}",
        "account": operation.account,
        "amount": ZERO if amount == b"0" else from_micro(int(amount)),
        "balance_after": balance_after,
        "available": balance_after if held == b"0" else from_micro(balance - int(held)),
        "replayed": parts[0] == b"replayed",
    }


def _credits(micro: bytes) -> Decimal:
    return ZERO if micro == b"0" else from_micro(int(micro))


def _transaction(operation: Operation[Any], parts: Sequence[bytes]) -> str:
    return format_transaction_id(operation.partition, parts[1].decode(), parts[2].decode())


def read_add(operation: Operation[AddResult], reply: bytes) -> AddResult:
    expires_ms = int(operation.args[9])
    return AddResult(
        **_change(operation, operation.parts(reply)), expires_at=time_of(expires_ms) if expires_ms else None
    )


def read_adjust(operation: Operation[AdjustResult], reply: bytes) -> AdjustResult:
    return AdjustResult(**_change(operation, operation.parts(reply)))


def read_deduct(operation: Operation[DeductResult], reply: bytes) -> DeductResult:
    parts = operation.parts(reply)
    if parts[6] == b"0" and not _has_more(parts[7]):
        return DeductResult(**_change(operation, parts))
    details = Details.decode(parts[7].decode())
    return DeductResult(
        **_change(operation, parts),
        allowance_consumed=_credits(parts[6]),
        warnings=_warnings(details),
        low_levels=_levels(details),
    )


def _has_more(details: bytes) -> bool:
    """Return whether the details of a charge may name caps or levels that it crossed: those of most charges do not."""
    return b"crossed/" in details or b"low" in details


def _warnings(details: Details) -> tuple[CapWarning, ...]:
    return tuple(CapWarning(cap_id=cap.cap_id, scope=cap.scope, action=cap.action) for cap in details.crossed)


def _levels(details: Details) -> tuple[Decimal, ...]:
    return tuple(from_micro(level) for level in details.low)


def read_reserve(operation: Operation[ReserveResult], reply: bytes) -> ReserveResult:
    parts = operation.parts(reply)
    return ReserveResult(
        **_change(operation, parts),
        lease_id=operation.lease_id,
        expires_at=time_of(int(parts[8])),
        version=int(parts[9]),
        allowance_consumed=ZERO if parts[6] == b"0" else _credits(parts[6]),
        warnings=_warnings(Details.decode(parts[7].decode())) if parts[7] else (),
    )


def read_settle(operation: Operation[SettleResult], reply: bytes) -> SettleResult:
    parts = operation.parts(reply)
    shortfall = ZERO if parts[8] == b"0" else _credits(parts[8])
    if parts[6] == b"0" and not _has_more(parts[7]):
        return SettleResult(
            **_change(operation, parts), lease_id=operation.lease_id, shortfall=shortfall, late=parts[9] == b"1"
        )
    details = Details.decode(parts[7].decode())
    return SettleResult(
        **_change(operation, parts),
        lease_id=operation.lease_id,
        shortfall=shortfall,
        late=parts[9] == b"1",
        allowance_consumed=_credits(parts[6]),
        warnings=_warnings(details),
        low_levels=_levels(details),
    )


def read_release(operation: Operation[ReleaseResult], reply: bytes) -> ReleaseResult:
    return ReleaseResult(**_change(operation, operation.parts(reply)), lease_id=operation.lease_id)


def read_extend(operation: Operation[ExtendResult], reply: bytes) -> ExtendResult:
    return ExtendResult(**_change(operation, operation.parts(reply)), lease_id=operation.lease_id)


def read_refund(operation: Operation[RefundResult], reply: bytes) -> RefundResult:
    parts = operation.parts(reply)
    return RefundResult(
        **_change(operation, parts),
        refund_of=str(operation.args[1]),
        refunded=from_micro(int(parts[8])),
        allowance_restored=from_micro(int(parts[6])),
        lost=from_micro(int(parts[7])),
    )


def read_change(operation: Operation[AccountChange], reply: bytes) -> AccountChange:
    parts = operation.parts(reply)
    return AccountChange(
        transaction_id=_transaction(operation, parts) if parts[2] else "",
        account=operation.account,
        replayed=parts[0] == b"replayed",
    )


def read_renew(operation: Operation[RenewResult], reply: bytes) -> RenewResult:
    parts = operation.parts(reply)
    return RenewResult(
        transaction_id=_transaction(operation, parts),
        account=operation.account,
        lease_id=operation.lease_id,
        expires_at=time_of(int(parts[3])),
        replayed=parts[0] == b"replayed",
    )


def read_balance(operation: Operation[Balance], reply: bytes) -> Balance:
    parts = operation.parts(reply)
    balance, held = int(parts[1]), int(parts[2])
    return Balance(
        account=operation.account,
        balance=from_micro(balance),
        held=from_micro(held),
        available=from_micro(balance - held),
        seq=int(parts[3]),
        allowance=from_micro(int(parts[4])),
    )


def read_description(operation: Operation[AccountDescription], reply: list[bytes]) -> AccountDescription:
    if reply[0] != b"ok":
        raise operation.failure(reply)
    return describe(operation.account, [part.decode() for part in reply[1:]])


def read_leases(operation: Operation[Page], reply: list[bytes]) -> Page:
    if reply[0] != b"ok":
        raise operation.failure(reply)
    now = int(reply[1])
    leases = []
    for lease_id, text in zip(reply[3::2], reply[4::2], strict=True):
        record = LeaseRecord.decode(text.decode())
        if record.state != "open" or record.expires_ms <= now:
            continue
        leases.append(
            Lease(
                lease_id=lease_id.decode(),
                account=operation.account,
                amount=from_micro(record.amount),
                operation_type=record.operation_type,
                owner=record.owner,
                created_at=time_of(record.created_ms),
                expires_at=time_of(record.expires_ms),
                age_seconds=(now - record.created_ms) / 1000,
                version=record.version,
                metadata=record.metadata,
                parent=LeaseGrounds.decode(record.grounds).parent,
            )
        )
    return Page(leases, int(reply[2]))


def read_lease(operation: Operation[LeaseStatus | None], reply: list[bytes]) -> LeaseStatus | None:
    if reply[0] != b"ok":
        raise operation.failure(reply)
    if len(reply) == 3:
        return None
    if not reply[3]:
        epoch, entry_id, _, _, amount = reply[5].decode().split("\t")[:5]
        return LeaseStatus(
            lease_id=operation.lease_id,
            account=operation.account,
            state=reply[4].decode(),
            amount=from_micro(int(amount)),
            transaction_id=format_transaction_id(operation.partition, epoch, entry_id),
        )
    record = LeaseRecord.decode(reply[3].decode())
    return LeaseStatus(
        lease_id=operation.lease_id,
        account=operation.account,
        state="open" if record.state == "open" and record.expires_ms > int(reply[1]) else "expired",
        amount=from_micro(record.amount),
        transaction_id=format_transaction_id(operation.partition, reply[2].decode(), record.entry_id),
        expires_at=time_of(record.expires_ms),
        metadata=record.metadata,
    )


def read_value(_: Operation[bytes | None], reply: bytes | None) -> bytes | None:
    return reply


def read_kept(_: Operation[bytes], reply: bytes) -> bytes:
    return reply


def read_sweep(operation: Operation[Sweep], reply: bytes) -> Sweep:
    parts = operation.parts(reply)
    return Sweep(int(parts[1]), int(parts[2]), int(parts[3]), parts[4] == b"1")


def read_accounts(_: Operation[list[str]], reply: list[bytes]) -> list[str]:
    return [account.decode() for account in reply]


def read_text(_: Operation[str], reply: bytes) -> str:
    return reply.decode()


def read_partition(_: Operation[PartitionRecord | None], reply: list[bytes]) -> PartitionRecord | None:
    if not reply:
        return None
    record = {name.decode(): value.decode() for name, value in zip(reply[::2], reply[1::2], strict=True)}
    return PartitionRecord(
        record["namespace_id"],
        record["state"],
        int(record["epoch"]),
        int(record["partitions"]),
        tuple(sorted(name.removeprefix(GROUP_FIELD) for name in record if name.startswith(GROUP_FIELD))),
    )


def read_published(operation: Operation[PricingVersion], reply: bytes) -> PricingVersion:
    parts = operation.parts(reply)
    return PricingVersion(
        version=int(parts[3]), activation=int(parts[4]), active=True, published_at=time_of(int(parts[5]))
    )


def read_activated(operation: Operation[PricingVersion], reply: bytes) -> PricingVersion:
    parts = operation.parts(reply)
    return PricingVersion(
        version=int(parts[1]), activation=int(parts[2]), active=True, published_at=time_of(int(parts[3]))
    )


def read_pricing(operation: Operation[PricingState], reply: list[bytes]) -> PricingState:
    if reply[0] != b"ok":
        raise operation.failure(reply)
    active, version = int(reply[1]), int(reply[4])
    asked = PricingVersion(
        version=version,
        activation=int(reply[5]),
        active=version == active,
        published_at=time_of(int(reply[6])),
        document=reply[7].decode(),
    )
    return PricingState(active, int(reply[2]), int(reply[3]), asked)
