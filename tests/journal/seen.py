"""A handler that the tests look into."""

from collections.abc import Callable

from ducto_redis.engine.entry import JournalEntry


class Seen:
    """A handler that remembers, and fails where it is told to."""

    def __init__(self, fails: Callable[[JournalEntry], Exception | None] | None = None) -> None:
        self.entries: list[JournalEntry] = []
        self.calls = 0
        self._fails = fails

    def __call__(self, entry: JournalEntry) -> None:
        self.calls += 1
        error = self._fails(entry) if self._fails else None
        if error:
            raise error
        self.entries.append(entry)

    def seqs(self, account: str) -> list[int]:
        return [entry.seq for entry in self.entries if entry.account == account]
