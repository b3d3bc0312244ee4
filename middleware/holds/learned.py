"""The share of their possible output that answers really use, learned as they pass.

A histogram for each route and model, in this process, is what holds are computed from. In the background it is merged
with those of other processes, through values that the engine keeps; no request waits for that.
"""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from ducto_redis.errors import ConfigError, CreditError
from ducto_redis.manager import AsyncCreditManager

logger = logging.getLogger("ducto_redis.middleware")

# Upper ends of the shares that are counted together: each 2 ** (1 / 4) times the one before.
_SHARES = tuple(2 ** (-step / 4) for step in range(48, -1, -1))
# Beyond so many, older answers count less with each new one, so that what is learned follows what models do.
_MOST_ANSWERS = 10_000
_KEPT_SECONDS = 30 * 24 * 3600
_MOST_HISTOGRAMS = 1024
_MERGE_ATTEMPTS = 5

_decoder = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0)]])


class LearnedHolds(Struct, frozen=True):
    """Settings of holds that are learned from answers.

    Attributes:
        quantile: the share of answers whose use the hold is to cover, such as 0.99.
        safety: what the learned share is multiplied with.
        answers: how many answers must have been seen of a route and model before they decide; until then the worst
            case is held.
        share_seconds: how often what was learned is merged with what other processes learned.

    Raises:
        ConfigError: where a setting is wrong.
    """

    quantile: float = 0.99
    safety: float = 1.25
    answers: int = 100
    share_seconds: float = 5

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("quantile", self.quantile, 0.5, 1),
            ("safety", self.safety, 1, 100),
            ("share_seconds", self.share_seconds, 0.1, 3600),
        ):
            number: object = value
            if type(number) not in (int, float) or not low <= value <= high:
                raise ConfigError(f"{name} of learned holds must be between {low} and {high}, not {number!r}")
        answers: object = self.answers
        if type(answers) is not int or not 1 <= self.answers <= _MOST_ANSWERS:
            raise ConfigError(f"answers of learned holds must be between 1 and {_MOST_ANSWERS}, not {answers!r}")


class Histogram:
    """A histogram of the shares of their possible output that answers used."""

    def __init__(self) -> None:
        self._shared = [0] * len(_SHARES)
        self._new = [0] * len(_SHARES)
        self._total = 0
        self._share = 1.0
        self._share_of = -1

    def __len__(self) -> int:
        return self._total

    def add(self, used: int, most: int) -> None:
        """Count an answer that used so many tokens of the most that it may have had."""
        self._new[_bin_of(used, most)] += 1
        self._total += 1

    def share(self, quantile: float) -> float:
        """Return the share that this part of all answers did not exceed; 1 where there are none.

        It is worked out anew whenever there is a hundredth more of them.
        """
        if self._share_of < 0 or self._total - self._share_of > self._share_of // 100:
            needed = quantile * self._total
            sums = accumulate(_sum(self._shared, self._new))
            self._share = next(
                (share for share, seen in zip(_SHARES, sums, strict=True) if seen and seen >= needed), 1.0
            )
            self._share_of = self._total
        return self._share

    def take_new(self) -> list[int]:
        """Return what was added since it was last asked, to be merged. `merged` or `put_back` follows."""
        new, self._new = self._new, [0] * len(_SHARES)
        self._shared = _sum(self._shared, new)
        return new

    def put_back(self, new: Sequence[int]) -> None:
        """Keep for the next merge what could not be merged."""
        self._shared = [max(0, shared - count) for shared, count in zip(self._shared, new, strict=True)]
        self._new = _sum(self._new, new)

    def merged(self, shared: Sequence[int]) -> None:
        """Take what all processes have learned together."""
        self._shared = list(shared)
        self._total = sum(self._shared) + sum(self._new)
        self._share_of = -1


class Learning:
    """Learns how much of their limits answers use, and says what to hold.

    Args:
        settings: how.
        manager: whose engine keeps what is shared.
    """

    def __init__(self, settings: LearnedHolds, manager: AsyncCreditManager) -> None:
        self._settings = settings
        self._manager = manager
        self._histograms: dict[tuple[str, str], Histogram] = {}
        self._unshared: set[tuple[str, str]] = set()
        self._sharing: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def output_tokens(self, route: str, model: str | None, most: int) -> int:
        """Return the output tokens to hold for a request that may have at most `most`: never more than that."""
        histogram = self._histogram(route, model)
        if histogram is None or len(histogram) < self._settings.answers:
            return most
        share = histogram.share(self._settings.quantile) * self._settings.safety
        return most if share >= 1 else max(1, -int(-most * share // 1))

    def answered(self, route: str, model: str | None, used: int, most: int) -> None:
        """Learn from an answer that used so many output tokens of the most that it may have had."""
        histogram = self._histogram(route, model)
        if histogram is not None and most > 0:
            histogram.add(used, most)
            self._share_later((route, model or ""))

    async def share(self) -> None:
        """Merge what was learned here with what other processes learned. What fails is merged the next time."""
        unshared, self._unshared = self._unshared, set()
        for key in unshared:
            histogram = self._histograms[key]
            new = histogram.take_new()
            try:
                histogram.merged(await self._merge(_name(*key), new))
            except CreditError as error:
                histogram.put_back(new)
                self._share_later(key)
                logger.debug("what was learned of holds is shared later: %s", error)

    async def _merge(self, name: str, new: Sequence[int]) -> list[int]:
        kept = await self._manager.get_value(None, name) or b""
        for _ in range(_MERGE_ATTEMPTS):
            merged = _faded(_sum(_read(kept), new))
            if not any(new):
                return merged
            value = msgspec.json.encode(merged)
            found = await self._manager.put_value(None, name, value, ttl=_KEPT_SECONDS, if_equals=kept)
            if found == value:
                return merged
            kept = found
        raise CreditError("other processes share what they learned too often")

    def _histogram(self, route: str, model: str | None) -> Histogram | None:
        key = (route, model or "")
        histogram = self._histograms.get(key)
        if histogram is None and len(self._histograms) < _MOST_HISTOGRAMS:
            histogram = self._histograms[key] = Histogram()
            self._share_later(key)  # others may know more of it
        return histogram

    def _share_later(self, key: tuple[str, str]) -> None:
        self._unshared.add(key)
        loop = asyncio.get_running_loop()
        if self._sharing is None or self._loop is not loop:
            self._loop = loop
            self._sharing = loop.call_later(self._settings.share_seconds, self._start_sharing)

    def _start_sharing(self) -> None:
        self._sharing = None
        if not self._manager.closed:
            self._manager.settle_task(self.share())


def _bin_of(used: int, most: int) -> int:
    return min(bisect_left(_SHARES, used / most), len(_SHARES) - 1)


def _sum(some: Sequence[int], more: Sequence[int]) -> list[int]:
    return [one + other for one, other in zip(some, more, strict=True)]


def _faded(counts: list[int]) -> list[int]:
    while sum(counts) > _MOST_ANSWERS:
        counts = [count // 2 for count in counts]
    return counts


def _read(kept: bytes) -> list[int]:
    try:
        counts = _decoder.decode(kept) if kept else []
    except msgspec.MsgspecError:
        counts = []
    # Of another version, with other shares: what it knows is learned anew.
    return counts if len(counts) == len(_SHARES) else [0] * len(_SHARES)


def _name(*key: Any) -> str:
    # Names of models are the clients': hashed, they fit into a name whatever they hold.
    return "ducto/learned_holds/" + blake2b(msgspec.json.encode(key), digest_size=12).hexdigest()
