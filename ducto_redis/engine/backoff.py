"""The pause before the next attempt."""

import random

FIRST_SECONDS = 0.01
LONGEST_SECONDS = 0.5
_MOST_DOUBLINGS = 16


def backoff(attempt: int, *, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS) -> float:
    """Seconds to wait after so many failed attempts (from 1): twice as long each time, at random below that.

    Clients that failed together do not come back together: each waits anything between nothing and the limit.
    """
    return random.uniform(0.0, min(longest, first * 2 ** min(attempt - 1, _MOST_DOUBLINGS)))
