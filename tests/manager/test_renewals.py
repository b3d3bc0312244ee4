"""Renewals of leases, in an event loop whose clock the test moves."""

import asyncio

import pytest

from ducto_redis.manager.renewals import Renewals


class Clock:
    """The loop's own time, and as much more as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.ahead = 0.0
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + self.ahead)

    async def forward(self, seconds: float) -> None:
        """Let so much time pass, and everything that is due then run."""
        self.ahead += seconds
        for _ in range(3):
            await asyncio.sleep(0)


async def test_each_is_renewed_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of one interval are renewed in the order in which they were added, each at its own time."""
    clock, renewed = Clock(monkeypatch), list[str]()
    renewals = Renewals[str](renewed.append)
    renewals.add("first", 60)
    await clock.forward(20)
    renewals.add("second", 60)
    renewals.add("soon", 30)
    await clock.forward(39)
    assert renewed == ["soon"]
    await clock.forward(2)
    assert renewed == ["soon", "first"]
    await clock.forward(20)
    assert renewed == ["soon", "first", "second"]


async def test_what_was_discarded_is_not_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that was discarded is left alone, the one after it is not; discarding twice changes nothing."""
    clock, renewed = Clock(monkeypatch), list[str]()
    renewals = Renewals[str](renewed.append)
    for lease in ("first", "second"):
        renewals.add(lease, 60)
    renewals.discard("first", 60)
    renewals.discard("first", 60)
    renewals.discard("unknown", 5)
    await clock.forward(61)
    assert renewed == ["second"]


async def test_renewed_leases_may_be_added_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that adds itself as it is renewed is renewed again an interval later, by a timer of its own queue."""
    clock, renewed = Clock(monkeypatch), list[str]()

    def renew(lease: str) -> None:
        renewed.append(lease)
        renewals.add(lease, 60)

    renewals = Renewals[str](renew)
    renewals.add("lease", 60)
    for _ in range(3):
        await clock.forward(61)
    assert renewed == ["lease"] * 3


def test_another_event_loop_starts_anew() -> None:
    """A loop that is gone takes its leases with it; in the next one leases are renewed as ever."""
    renewed = list[str]()
    renewals = Renewals[str](renewed.append)

    async def add(lease: str, seconds: float) -> None:
        renewals.add(lease, seconds)
        await asyncio.sleep(0)

    async def renewed_at_once() -> None:
        renewals.add("new", 0)
        while not renewed:
            await asyncio.sleep(0)

    asyncio.run(add("old", 0.001))
    asyncio.run(renewed_at_once())
    assert renewed == ["new"]
