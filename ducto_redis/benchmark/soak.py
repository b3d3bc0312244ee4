"""The same mixed load for a long time: whether memory or latency drift, and whether the ledger adds up at the end.

What the engine keeps by design would look like a leak: the journal until a worker has read it, and records of
operations and closed leases for a day. So a `ducto worker` runs beside it, and a record is deleted when it has been
there for a whole period: a day's retention, in minutes. What is left of the server's memory should stand still, but for
refunds: how much of a charge was given back is remembered for good, some 50 bytes for each.
"""

import asyncio
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import redis
from msgspec import Struct, structs

from ducto_redis.benchmark.drift import Drift, drift_of
from ducto_redis.benchmark.harness import BenchmarkError
from ducto_redis.benchmark.memory import used_memory
from ducto_redis.benchmark.setting import Setting, account_names, prepare
from ducto_redis.benchmark.throughput import in_flight
from ducto_redis.benchmark.works import ESTIMATE, USAGE
from ducto_redis.errors import CreditError
from ducto_redis.ledger import Ledger, VerifyReport
from ducto_redis.manager import AsyncCreditManager
from ducto_redis.run_sync import run_sync
from ducto_redis.store.redis import RedisStore

RATE = 300
"""Calls started per second: what leaves most of the processor idle, so that latency means something."""

_ACCOUNTS = 1_000
_TICKS_PER_SECOND = 50
_MOST_IN_FLIGHT = 1_000
_PERIOD_SECONDS = 60.0
_FEWEST_PERIODS = 5
_WARM_UP_PERIODS = 2
_LONGEST_OTHER_TTL_MS = 300_000
"""Keys that expire sooner are no records: claims and the like."""
_SEED = 20260101
_MIB = 2**20
_DRAIN_SECONDS = 120.0
_STOP_SECONDS = 15.0


class Period(Struct, frozen=True):
    """Observations at the end of one period.

    Attributes:
        minutes: since the load began.
        calls: that ended in it.
        p50_us, p99_us: microseconds of a call.
        client_bytes: resident memory of this process.
        worker_bytes: resident memory of the worker's.
        server_bytes: the server's memory, without the journals.
        journal: entries that no worker has trimmed yet.
    """

    minutes: float
    calls: int
    p50_us: float
    p99_us: float
    client_bytes: int
    worker_bytes: int
    server_bytes: int
    journal: int


class SoakResult(Struct, frozen=True):
    """A soak.

    Attributes:
        periods: what was seen, in order.
        drifts: the slope of each measure over the periods after the warm-up, per hour.
        calls: by what they were.
        errors: by what they were.
        verified: what `Ledger.verify` says of ledger and engine at the end.
    """

    periods: list[Period]
    drifts: dict[str, Drift]
    calls: dict[str, int]
    errors: dict[str, int]
    verified: VerifyReport

    @property
    def ok(self) -> bool:
        """True where every call succeeded and the ledger adds up. Drift is for people to judge."""
        return self.verified.ok and not self.verified.behind and not self.errors

    def lines(self) -> list[str]:
        """Return the closing lines."""
        made = ", ".join(f"{count:,} {name}" for name, count in self.calls.items())
        failed = ", ".join(f"{count:,} {name}" for name, count in self.errors.items())
        proof = f"{self.verified.accounts:,} accounts, {self.verified.entries:,} entries"
        return [
            f"drift per hour, by least squares, without the first {_WARM_UP_PERIODS} periods:",
            *(f"  {name:<18} {drift}" for name, drift in self.drifts.items()),
            f"calls: {made}",
            f"errors: {failed or 'none'}",
            f"ledger: {proof}: {'everything adds up' if self.verified.ok else 'IT DOES NOT ADD UP'}",
        ]

    def document(self) -> dict[str, Any]:
        """Return the whole of it as JSON values."""
        return {
            "ok": self.ok,
            "periods": [structs.asdict(period) for period in self.periods],
            "drift_per_hour": {name: structs.asdict(drift) for name, drift in self.drifts.items()},
            "calls": self.calls,
            "errors": self.errors,
            "verified": {
                "ok": self.verified.ok,
                "accounts": self.verified.accounts,
                "entries": self.verified.entries,
                "compared": self.verified.compared,
            },
        }


PERIOD_HEADINGS = " ".join(
    f"{heading:>{width}}"
    for heading, width in (
        ("minute", 7),
        ("calls", 9),
        ("p50", 10),
        ("p99", 10),
        ("client", 11),
        ("worker", 11),
        ("server", 11),
        ("journal", 8),
    )
)


def period_line(period: Period) -> str:
    """Return the cells of a period under PERIOD_HEADINGS."""
    return (
        f"{period.minutes:7.1f} {period.calls:9,} {period.p50_us:7,.0f} µs {period.p99_us:7,.0f} µs"
        f" {period.client_bytes / _MIB:7.1f} MiB {period.worker_bytes / _MIB:7.1f} MiB"
        f" {period.server_bytes / _MIB:7.1f} MiB {period.journal:8,}"
    )


def soak(
    url: str, folder: Path, *, minutes: float, rate: int = RATE, tell: Callable[[Period], None] | None = None
) -> SoakResult:
    """Run the load.

    Args:
        url: of the server; a namespace of its own is used, and deleted afterwards.
        folder: where the SQLite ledger goes.
        minutes: how long.
        rate: calls started per second.
        tell: is called with each period when it is over.

    Raises:
        BenchmarkError, StoreError
    """
    setting = Setting(url, 1.0, _SEED)
    ledger_url = f"sqlite:///{folder / 'soak.db'}"
    with setting.namespace() as namespace, closing(Ledger.from_url(ledger_url)) as ledger:
        ledger.migrate()
        load = _Load(setting, namespace, rate, minutes, tell)
        with _worker(url, ledger_url, namespace, folder) as worker:
            asyncio.run(load.run(ledger_url, worker))
        store = RedisStore(url, namespace=namespace, blocking=True)
        try:
            verified = ledger.verify(namespace, store=store)
        finally:
            run_sync(store.close())
        return SoakResult(load.periods, load.drifts(), dict(load.calls), dict(load.errors), verified)


@contextmanager
def _worker(url: str, ledger_url: str, namespace: str, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`ducto worker`, as one runs it in production: a process of its own."""
    names = {"DUCTO_REDIS_URL": url, "DUCTO_LEDGER_URL": ledger_url, "DUCTO_NAMESPACE": namespace}
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "ducto_redis", "worker", "--health-port", "0", "--quiet"],
            env={**os.environ, **names, "DUCTO_PARTITIONS": ""},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is for this process, which stops it
        )
        try:
            yield worker
        finally:
            worker.terminate()
            try:
                worker.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


class _Load:
    """Starts calls at a steady rate, whatever becomes of those before, and looks at memory after each period."""

    def __init__(
        self, setting: Setting, namespace: str, rate: int, minutes: float, tell: Callable[[Period], None] | None
    ) -> None:
        self.periods: list[Period] = []
        self.calls: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._setting = setting
        self._namespace = namespace
        self._rate = rate
        self._seconds = minutes * 60
        self._period_seconds = min(_PERIOD_SECONDS, self._seconds / _FEWEST_PERIODS)
        self._tell = tell
        self._accounts = account_names(_ACCOUNTS)
        self._draw = random.Random(setting.seed)
        self._number = 0
        self._latencies: list[float] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._old_records: set[bytes] = set()

    def drifts(self) -> dict[str, Drift]:
        """By what was measured."""
        seen = self.periods[_WARM_UP_PERIODS:]
        hours = [period.minutes / 60 for period in seen]
        return {
            "client memory": drift_of(hours, [it.client_bytes / _MIB for it in seen], "MiB"),
            "worker memory": drift_of(hours, [it.worker_bytes / _MIB for it in seen], "MiB"),
            "server memory": drift_of(hours, [it.server_bytes / _MIB for it in seen], "MiB"),
            "p50": drift_of(hours, [it.p50_us for it in seen], "µs"),
            "p99": drift_of(hours, [it.p99_us for it in seen], "µs"),
        }

    async def run(self, ledger_url: str, worker: "subprocess.Popen[bytes]") -> None:
        url, namespace = self._setting.redis_url, self._namespace
        async with AsyncCreditManager.from_url(url, ledger_url, namespace=namespace) as manager:
            await prepare(manager)
            await in_flight(lambda number: manager.add_credits(self._accounts[number], 10**6), range(_ACCOUNTS))
            with self._setting.redis() as client:
                began = monotonic()
                while (now := monotonic()) - began < self._seconds:
                    await self._drive(manager, min(now + self._period_seconds, began + self._seconds))
                    await self._look(client, worker, monotonic() - began)
            if self._under_way:
                await asyncio.wait(self._under_way)
            await manager.wait_for_ledger(timeout_seconds=_DRAIN_SECONDS)

    async def _drive(self, manager: AsyncCreditManager, until: float) -> None:
        began, started = monotonic(), 0
        while (now := monotonic()) < until:
            due = int((now - began) * self._rate)
            for _ in range(due - started):
                if len(self._under_way) < _MOST_IN_FLIGHT:
                    task = asyncio.get_running_loop().create_task(self._call(manager))
                    self._under_way.add(task)
                    task.add_done_callback(self._under_way.discard)
            started = due
            await asyncio.sleep(1 / _TICKS_PER_SECOND)

    async def _call(self, manager: AsyncCreditManager) -> None:
        self._number += 1
        name, call = self._choose(manager, self._draw.choice(self._accounts), f"{self._number:012d}")
        start = perf_counter()
        try:
            await call()
        except CreditError as error:
            self.errors[type(error).__name__] += 1
        else:
            self._latencies.append(perf_counter() - start)
            self.calls[name] += 1

    def _choose(
        self, manager: AsyncCreditManager, account: str, unique: str
    ) -> tuple[str, Callable[[], Awaitable[object]]]:
        drawn = self._draw.random()
        if drawn < 0.55:
            return "deduct", partial(manager.deduct, account, USAGE, idempotency_key=unique)
        if drawn < 0.80:
            return "reserve and settle", partial(_reserve_and_settle, manager, account, unique)
        if drawn < 0.84:
            return "reserve and release", partial(_reserve_and_release, manager, account, unique)
        if drawn < 0.85:
            return "deduct and refund", partial(_deduct_and_refund, manager, account, unique)
        if drawn < 0.90:
            return "add_credits", partial(manager.add_credits, account, 5, idempotency_key=unique)
        return "get_balance", partial(manager.get_balance, account)

    async def _look(self, client: redis.Redis, worker: "subprocess.Popen[bytes]", seconds: float) -> None:
        if worker.poll() is not None:
            raise BenchmarkError(f"the worker ended with status {worker.returncode}")
        latencies, self._latencies = sorted(self._latencies), []
        if not latencies:
            raise BenchmarkError("no call succeeded in a whole period")
        server_bytes, journal = await asyncio.to_thread(self._look_at_server, client)
        period = Period(
            minutes=seconds / 60,
            calls=len(latencies),
            p50_us=latencies[len(latencies) // 2] * 1e6,
            p99_us=latencies[len(latencies) * 99 // 100] * 1e6,
            client_bytes=_resident_bytes("self"),
            worker_bytes=_resident_bytes(str(worker.pid)),
            server_bytes=server_bytes,
            journal=journal,
        )
        self.periods.append(period)
        if self._tell is not None:
            self._tell(period)

    def _look_at_server(self, client: redis.Redis) -> tuple[int, int]:
        records = _records(client, self._namespace)
        forgotten = list(records & self._old_records)
        for first in range(0, len(forgotten), 1000):
            client.unlink(*forgotten[first : first + 1000])
        self._old_records = records.difference(forgotten)
        store = RedisStore(self._setting.redis_url, namespace=self._namespace)
        journals = [store.namespace.journal(partition) for partition in store.partitions()]
        used = used_memory(client)
        kept: list[Any] = [client.memory_usage(journal) for journal in journals]
        return used - sum(size or 0 for size in kept), sum(int(client.xlen(journal)) for journal in journals)


async def _reserve_and_settle(manager: AsyncCreditManager, account: str, unique: str) -> None:
    await manager.reserve(account, ESTIMATE, lease_id=unique)
    await manager.settle(account, unique, USAGE)


async def _reserve_and_release(manager: AsyncCreditManager, account: str, unique: str) -> None:
    await manager.reserve(account, ESTIMATE, lease_id=unique)
    await manager.release(account, unique)


async def _deduct_and_refund(manager: AsyncCreditManager, account: str, unique: str) -> None:
    charge = await manager.deduct(account, USAGE, idempotency_key=unique)
    await manager.refund_credits(charge.transaction_id, idempotency_key=f"refund-{unique}")


def _records(client: redis.Redis, namespace: str) -> set[bytes]:
    """Keys of the namespace that are kept for a while: records of operations and of closed leases."""
    found: set[Any] = set()
    cursor = -1
    while cursor:
        cursor, keys = client.scan(max(cursor, 0), match=f"{namespace}:{{*", count=1000)
        with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.pttl(key)
            found.update(key for key, ttl in zip(keys, pipeline.execute(), strict=True) if ttl > _LONGEST_OTHER_TTL_MS)
    return found


def _resident_bytes(process: str) -> int:
    """Memory of a process; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
