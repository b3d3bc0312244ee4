"""A store whose server's clock stands where a test puts it."""

from datetime import UTC, datetime, timedelta
from functools import cache

from ducto_redis.engine.operations import Operations
from ducto_redis.engine.scripts import Scripts, load_scripts, read_sources
from ducto_redis.store import MemoryStore


@cache
def _sources() -> dict[str, str]:
    return dict(read_sources())


def scripts_at(time: datetime) -> Scripts:
    """The scripts with a clock that stands still."""
    now = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    stopped = {**_sources(), "lib/now": f"local function now()\n  return {now}\nend\n"}
    return load_scripts(sources=stopped, shebang=False)


class Clock:
    """A MemoryStore, and its server's time.

    Attributes:
        store: the store.
        time: what its scripts take for now.
    """

    def __init__(self, time: datetime | None = None) -> None:
        # The present, unless a test needs a date: entries of the journal are dated by the real clock.
        self.time = time or datetime.now(UTC).replace(microsecond=0)
        self.store = MemoryStore(scripts=scripts_at(self.time))

    def set(self, time: datetime) -> None:
        """Put the clock there."""
        self.time = time
        self.store.operations = Operations(self.store.namespace, scripts_at(time))

    def move(self, **how_far: float) -> None:
        """Move the clock: `move(days=1, seconds=1)`."""
        self.set(self.time + timedelta(**how_far))
