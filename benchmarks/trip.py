"""The way of one metered request through the package: `python -m benchmarks.trip [--calls]`.

It counts, for one JSON request over a real connection to a Valkey of its own, from the middleware's `__call__` to the
end of the charge: files of the package, calls of their functions, calls that leave their file, and the deepest stack.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import ducto_redis
from benchmarks.chat_app import metered_by, request_body
from benchmarks.middleware import call
from benchmarks.servers import valkey, workshop
from ducto_redis import AsyncCreditManager
from ducto_redis.benchmark.setting import ACCOUNT, prepare

_PACKAGE = Path(ducto_redis.__file__).parent
_WARM_UP_REQUESTS = 20


class Trip(NamedTuple):
    """The way of one request.

    Attributes:
        files: files of the package that it passes.
        calls: calls of functions in them. A coroutine that is continued is not called again.
        moves: calls that come from another file of the package.
        frames: the most functions of the package that were on the stack at once.
        functions: how often each function was called, as `file:name`.
    """

    files: int
    calls: int
    moves: int
    frames: int
    functions: dict[str, int]


class _Trace:
    """Counts calls of the package's functions, on the thread that starts it."""

    def __init__(self) -> None:
        self.functions: Counter[str] = Counter()
        self.moves = 0
        self.frames = 0
        self._seen: dict[int, FrameType] = {}  # holds the frames, so that no identity is used twice
        self._files: dict[str, str | None] = {}

    def take(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take an event of the interpreter: the profile function."""
        if event != "call" or (file := self._file(frame)) is None:
            return
        self.frames = max(self.frames, sum(1 for _ in self._own_frames(frame)))
        if id(frame) in self._seen:
            return
        self._seen[id(frame)] = frame
        self.functions[f"{file}:{frame.f_code.co_qualname}"] += 1
        caller = next(self._own_frames(frame.f_back), None)
        if caller is not None and self._file(caller) != file:
            self.moves += 1

    def _own_frames(self, frame: FrameType | None) -> Iterator[FrameType]:
        while frame is not None:
            if self._file(frame) is not None:
                yield frame
            frame = frame.f_back

    def _file(self, frame: FrameType) -> str | None:
        name = frame.f_code.co_filename
        if name not in self._files:
            path = Path(name).resolve()
            inside = any(path.is_relative_to(root) for root in _roots())
            self._files[name] = f"{path.parent.name}/{path.name}" if inside else None
        return self._files[name]


def _roots() -> Iterator[Path]:
    yield _PACKAGE.resolve()
    yield (_PACKAGE / "middleware").resolve()  # a link in a checkout


@contextmanager
def traced() -> Iterator[_Trace]:
    """Yield what counts the calls made inside."""
    trace = _Trace()
    sys.setprofile(trace.take)
    try:
        yield trace
    finally:
        sys.setprofile(None)


async def measure_trip(url: str) -> Trip:
    """Return the way of one JSON request that is metered by the engine at `url`."""
    async with AsyncCreditManager.from_url(url, namespace="trip") as manager:
        await prepare(manager, ACCOUNT)
        app, body = metered_by(manager), request_body()
        for _ in range(_WARM_UP_REQUESTS):
            await call(app, body)
        await asyncio.sleep(0.05)  # what the last of them leaves to the event loop is not counted
        before = (await manager.get_balance(ACCOUNT)).balance
        with traced() as trace:
            await call(app, body)
        if (await manager.get_balance(ACCOUNT)).balance >= before:
            raise RuntimeError("the request was not charged")
    files = {name.partition(":")[0] for name in trace.functions}
    calls = sum(trace.functions.values())
    return Trip(len(files), calls, trace.moves, trace.frames, dict(trace.functions))


def main() -> None:
    """Print the trip."""
    with workshop() as folder, valkey(folder) as url:
        trip = asyncio.run(measure_trip(url))
    if "--calls" in sys.argv:
        for name, count in trip.functions.items():
            print(f"{count:3} {name}")
    print(f"{trip.files} files, {trip.calls} calls, {trip.moves} between files, {trip.frames} frames at most")


if __name__ == "__main__":
    main()
