"""The throttle of refusals: one of a kind a second, a hundred in all, and none while nobody listens."""

import pytest

from ducto_redis.events.throttle import RefusalThrottle
from ducto_redis.events.types import CreditEvent, DeductFailed, EventType


class Seconds:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(account: str = "u1", error: str = "insufficient_credits") -> CreditEvent:
    return CreditEvent(
        type=EventType.DEDUCT_FAILED,
        account=account,
        time=None,  # type: ignore[arg-type]  # a throttle does not look
        event_id="x",
        data=DeductFailed(operation="deduct", error=error, message=""),
    )


@pytest.fixture
def throttle() -> RefusalThrottle:
    return RefusalThrottle(Seconds())


def clock_of(throttle: RefusalThrottle) -> Seconds:
    clock = throttle._clock
    assert isinstance(clock, Seconds)
    return clock


def test_one_of_a_kind_in_a_second(throttle: RefusalThrottle) -> None:
    """An account's refusals of one kind are sent once in a second; the next one says how many there were between."""
    assert [throttle.admit(refusal()) for _ in range(4)] == [0, None, None, None]
    assert throttle.admit(refusal("u2")) == 0
    assert throttle.admit(refusal(error="account_frozen")) == 0
    clock_of(throttle).now += 1
    assert [throttle.admit(refusal()) for _ in range(2)] == [3, None]


def test_a_hundred_in_a_second(throttle: RefusalThrottle) -> None:
    """A process sends at most a hundred signals in a second, however many accounts are refused."""
    sent = [throttle.admit(refusal(f"u{number}")) for number in range(500)]
    assert sent == [0] * 100 + [None] * 400
    clock_of(throttle).now += 0.5
    assert sum(throttle.admit(refusal(f"v{number}")) is not None for number in range(500)) == 50


def test_what_it_remembers_is_bounded(throttle: RefusalThrottle) -> None:
    """Refusing a million accounts costs a process no memory to speak of."""
    for number in range(10_000):
        throttle.admit(refusal(f"u{number}"))
    assert len(throttle._last) == 4096


def test_nobody_listens(throttle: RefusalThrottle) -> None:
    """Where nobody listens nothing is sent for five seconds."""
    throttle.pause()
    assert not throttle.open
    assert throttle.admit(refusal()) is None
    clock_of(throttle).now += 5
    assert throttle.open
    assert throttle.admit(refusal()) == 0
