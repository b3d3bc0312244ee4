"""The circuit breaker by its own clock, and the pauses between attempts."""

import pytest

from ducto_redis.engine.backoff import FIRST_SECONDS, LONGEST_SECONDS, backoff
from ducto_redis.engine.breaker import FAILURES, LONGEST_COOL_DOWN_SECONDS, Breaker


@pytest.fixture
def breaker() -> Breaker:
    """One that bears two seconds of failing."""
    return Breaker(2.0)


def fail(breaker: Breaker, times: int = FAILURES, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.failed(now, since=now)


def test_opens_at_failures_in_a_row(breaker: Breaker) -> None:
    """The fifth failure in a row opens it; an answer in between begins the row anew."""
    fail(breaker, FAILURES - 1)
    breaker.succeeded()
    fail(breaker, FAILURES - 1)
    assert breaker.admits(0.0)
    fail(breaker, 1)
    assert not breaker.admits(0.0)


def test_opens_when_failing_has_lasted(breaker: Breaker) -> None:
    """One failure is enough where it took as long as a call may take; two where they did together."""
    breaker.failed(10.0, since=8.0)
    assert not breaker.admits(10.0)
    breaker.succeeded()
    breaker.failed(21.0, since=20.0)
    assert breaker.admits(21.0)
    breaker.failed(22.0, since=21.0)
    assert not breaker.admits(22.0)


def test_lets_one_call_through_after_each_cool_down(breaker: Breaker) -> None:
    """Whoever asks first after the cool-down goes and sees; for as long again, the others are refused."""
    fail(breaker)
    later = breaker.seconds_closed(0.0)
    assert 0 < later <= LONGEST_COOL_DOWN_SECONDS
    assert [breaker.admits(later), breaker.admits(later)] == [True, False]
    assert breaker.admits(later + breaker.seconds_closed(later))


def test_an_answer_closes_it(breaker: Breaker) -> None:
    """The first answer, whoever got it, admits everything again."""
    fail(breaker)
    breaker.succeeded()
    assert [breaker.admits(0.0), breaker.admits(0.0)] == [True, True]


def test_cools_down_for_longer_while_probes_fail(breaker: Breaker) -> None:
    """Each probe that fails doubles the cool-down, up to a limit, and it never ends by itself."""
    fail(breaker)
    now, lengths = 0.0, []
    for _ in range(10):
        lengths.append(breaker.seconds_closed(now))
        now += lengths[-1]
        assert breaker.admits(now)
        fail(breaker, 1, now)
    assert lengths[0] < LONGEST_COOL_DOWN_SECONDS / 2 <= lengths[-1] <= LONGEST_COOL_DOWN_SECONDS
    assert breaker.seconds_failing(now) == now


def test_what_is_tried_all_the_same_prolongs_nothing(breaker: Breaker) -> None:
    """Settles go on trying while the breaker is open: their failures leave the time of the next probe where it was."""
    fail(breaker)
    later = breaker.seconds_closed(0.0)
    fail(breaker, 20, later / 2)
    assert breaker.admits(later)


def test_pauses_grow_up_to_a_limit_and_are_random() -> None:
    """Clients that failed together do not try again together."""
    limits = [max(backoff(attempt) for _ in range(300)) for attempt in (1, 3, 50)]
    assert limits[0] <= FIRST_SECONDS < limits[1] <= 4 * FIRST_SECONDS < limits[2] <= LONGEST_SECONDS
    assert len({backoff(5) for _ in range(10)}) > 1
