"""How far drawn tests search: a little and the same in each ordinary run, far and at random in a long one.

The tests that hypothesis drives run in both: `pytest -m long` draws other cases each time, and more of them.
"""

import os
import random

from hypothesis import settings

settings.register_profile("ordinary", deadline=None, derandomize=True)
settings.register_profile("long", deadline=None, database=None, print_blob=True)


def is_long_run() -> bool:
    """Return whether the long tests run, which have the time to search far."""
    return settings.get_current_profile_name() == "long"


def examples(ordinary: int, *, long: int) -> settings:
    """Return how many cases hypothesis draws for a test, in an ordinary run and in a long one."""
    return settings(max_examples=long if is_long_run() else ordinary)


def chosen_seed(variable: str, *, ordinary: int = 0) -> int:
    """Return the seed that an environment variable gives; without one a fixed seed, or a random one in a long run."""
    return int(os.environ.get(variable) or (random.randrange(2**32) if is_long_run() else ordinary))
