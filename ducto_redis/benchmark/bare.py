"""The limit of an operation: the same script, with the same KEYS and ARGV, sent with next to no work by the client.

`redis-benchmark -P 16` is that limit where it is installed and can play the work. It draws every id at random and anew,
so it cannot settle the lease that it has just opened; and its arguments are seen by every user of the machine, so it is
given no password. Then a plain socket sends commands that were packed before the clock started: in the same portions,
with as many in flight, it is about as fast.
"""

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis
from msgspec import Struct

from ducto_redis.benchmark.harness import BenchmarkError
from ducto_redis.engine.operation import Operation
from ducto_redis.engine.scripts import Script

UNIQUE = "000000000000"
"""The id in a recorded command, in whose place each command has its own. redis-benchmark's are as long."""

RETURN_1 = Script("return_1", b"return 1", sha1(b"return 1", usedforsecurity=False).hexdigest().encode())

_RANDOM = b"__rand_int__"
_RANDOM_IDS = 2**31 - 1
_CONNECTIONS = 50
_PIPELINE = 16
_IN_FLIGHT = _CONNECTIONS * _PIPELINE
_TIMEOUT_SECONDS = 60


class Command(Struct, frozen=True):
    """A script and what it is run with."""

    script: Script
    keys: tuple[bytes, ...]
    args: tuple[bytes, ...]

    @classmethod
    def of(cls, operation: Operation[Any]) -> "Command":
        """Return the command of an operation."""
        return cls(operation.script, operation.keys, tuple(_encode(arg) for arg in operation.args))

    def doing_nothing(self) -> "Command":
        """Return the same KEYS and ARGV, for a script that only returns 1."""
        return Command(RETURN_1, self.keys, self.args)

    def with_id(self, unique: bytes) -> list[bytes]:
        """EVALSHA and its arguments, with `unique` in the place of the recorded id."""
        given = [part.replace(UNIQUE.encode(), unique) for part in (*self.keys, *self.args)]
        return [b"EVALSHA", self.script.sha, b"%d" % len(self.keys), *given]


def redis_benchmark_can(url: str, commands: Sequence[Command]) -> bool:
    """Tell whether redis-benchmark is installed and can play this work on this server."""
    parts = urlsplit(url)
    is_open = parts.scheme == "redis" and not parts.username and not parts.password and not parts.query
    return len(commands) == 1 and is_open and shutil.which("redis-benchmark") is not None


def redis_benchmark(url: str, command: Command, count: int) -> float:
    """Commands per second of `redis-benchmark -P 16`."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", str(parts.port or 6379)
    where = ["-h", host, "-p", port, "--dbnum", parts.path.strip("/") or "0"]
    how = ["-c", str(_CONNECTIONS), "-P", str(_PIPELINE), "-n", str(count), "-r", str(_RANDOM_IDS), "--csv"]
    done = subprocess.run(
        [b"redis-benchmark", *(part.encode() for part in (*where, *how)), *command.with_id(_RANDOM)],
        capture_output=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode or done.stderr:
        raise BenchmarkError(f"redis-benchmark failed: {(done.stderr or done.stdout).decode()[-500:]}")
    # The last line: the command, which may hold commas and quotes, requests per second, then six latencies.
    return float(done.stdout.decode().splitlines()[-1].rsplit(",", 7)[1].strip('"'))


def plain_socket(url: str, commands: Sequence[Command], count: int) -> float:
    """Rounds of `commands` per second on one connection, packed before, with as many in flight as redis-benchmark."""
    chunks = [b"".join(map(_pack, chunk)) for chunk in _chunks(commands, count)]
    with _connected(url) as connection:
        start = perf_counter()
        replies = _exchange(connection, chunks, count * len(commands))
        seconds = perf_counter() - start
    for reply in replies:
        if reply != 1 and not (isinstance(reply, bytes) and reply.startswith(b"ok\t")):
            raise BenchmarkError(f"a bare script was refused: {reply!r:.200}")
    return count / seconds


@contextmanager
def _connected(url: str) -> Iterator[socket.socket]:
    """Open a socket on which redis-py has shaken hands: TLS, AUTH, database."""
    with redis.Redis.from_url(url, protocol=2, socket_timeout=_TIMEOUT_SECONDS) as client:
        connection = client.connection_pool.get_connection()
        connection.connect()
        try:
            yield connection._sock
        finally:
            connection.disconnect()


def _chunks(commands: Sequence[Command], count: int) -> Iterator[list[list[bytes]]]:
    # Each command of a round in a chunk of its own, so that as many leases are open as with as many callers.
    for first in range(0, count, _PIPELINE):
        ids = [b"%012d" % unique for unique in range(first, min(first + _PIPELINE, count))]
        for command in commands:
            yield [command.with_id(unique) for unique in ids]


def _exchange(connection: socket.socket, chunks: Sequence[bytes], expected: int) -> list[Any]:
    reader = hiredis.Reader()
    replies: list[Any] = []
    sent = 0
    while len(replies) < expected:
        while sent < len(chunks) and sent * _PIPELINE - len(replies) < _IN_FLIGHT:
            connection.sendall(chunks[sent])
            sent += 1
        received = connection.recv(65536)
        if not received:
            raise BenchmarkError("the server closed the connection")
        reader.feed(received)
        while (reply := reader.gets()) is not False:
            replies.append(reply)
    return replies


def _pack(parts: list[bytes]) -> bytes:
    packed: bytes = hiredis.pack_command(tuple(parts))  # type: ignore[arg-type]  # its stub means one or more of these
    return packed


def _encode(value: str | bytes | int) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
