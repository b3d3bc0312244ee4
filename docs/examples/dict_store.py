"""A store of dictionaries behind a lock: the package's Lua scripts, on storage of its own.

    pytest --ducto-store=dict_store:make_store

Every rule about credits stands in the scripts, and nowhere else. This file brings what they stand on:

    Rows       the data and the atomic step: what another database takes the place of
    Commands   the commands of Redis that the scripts use, as reads and writes of rows
    Lua        runs a script, by lupa: pip install 'ducto-redis[memory]'
    DictStore  puts them together
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from heapq import heappop, heappush
from typing import Any
from zlib import crc32

from lupa.lua51 import LuaError, LuaRuntime, lua_type

from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.scripts import Script, Scripts, load_scripts
from ducto_redis.errors import StoreError
from ducto_redis.store import ScriptStore

NO_LIMIT = 2**53
"""Entries of a journal that nothing trims, for nobody reads it but `read_entry`."""


class Rows:
    """All data of a namespace: values by key and field, all of them bytes.

    In SQL it would be one table with the primary key (key, field). The scripts name the keys that they touch; all keys
    of an operation belong to one partition.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, dict[bytes, bytes]] = {}
        self._lock = threading.Lock()
        self._undo: list[tuple[bytes, bytes, bytes | None]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """One atomic step, where another database begins and commits a transaction, or rolls it back.

        No other step sees half of it, and none runs in between: `SERIALIZABLE`, or a lock of the partition.
        """
        with self._lock:
            self._undo.clear()
            try:
                yield
            except BaseException:
                for key, field, value in reversed(self._undo):
                    self._set(key, field, value)
                raise

    def get(self, key: bytes, field: bytes) -> bytes | None:
        """The value, or None."""
        return self._rows.get(key, {}).get(field)

    def of(self, key: bytes) -> dict[bytes, bytes]:
        """All values of a key by field."""
        return self._rows.get(key, {})

    def put(self, key: bytes, field: bytes, value: bytes | None) -> None:
        """Set a value, or, with None, remove it."""
        self._undo.append((key, field, self.get(key, field)))
        self._set(key, field, value)

    def _set(self, key: bytes, field: bytes, value: bytes | None) -> None:
        fields = self._rows.setdefault(key, {})
        if value is not None:
            fields[field] = value
        else:
            fields.pop(field, None)
            if not fields:
                del self._rows[key]


class Commands:
    """The commands, each with what it replies: bytes, an int, None, or a list of these.

    They do what the scripts need of them and no more. Commands that only the journal's consumers use are not here.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._expiring: list[tuple[int, bytes]] = []

    def time(self) -> list[bytes]:
        """Seconds and microseconds."""
        seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        return [b"%d" % seconds, b"%d" % microseconds]

    # Hashes: a row for each field

    def hget(self, key: bytes, field: bytes) -> bytes | None:
        return self._rows.get(key, field)

    def hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        return [self._rows.get(key, field) for field in fields]

    def hset(self, key: bytes, *pairs: bytes) -> int:
        new = 0
        for field, value in zip(pairs[::2], pairs[1::2], strict=True):
            new += self._rows.get(key, field) is None
            self._rows.put(key, field, value)
        return new

    def hdel(self, key: bytes, *fields: bytes) -> int:
        return sum(self._remove(key, field) for field in fields)

    def hgetall(self, key: bytes) -> list[bytes]:
        return [part for pair in self._rows.of(key).items() for part in pair]

    def hvals(self, key: bytes) -> list[bytes]:
        return list(self._rows.of(key).values())

    def hlen(self, key: bytes) -> int:
        return len(self._rows.of(key))

    def hscan(self, key: bytes, cursor: bytes, _count: bytes, count: bytes) -> list[Any]:
        """A page in the order of the fields' checksums: what stays is on one of the pages."""
        left = sorted((crc32(field), field, value) for field, value in self._rows.of(key).items())
        left = [row for row in left if row[0] >= int(cursor)]
        end = left[int(count) - 1][0] + 1 if len(left) > int(count) else 0
        return [b"%d" % end, [part for place, *pair in left if not end or place < end for part in pair]]

    # Strings that expire: one row, the time before the value

    def get(self, key: bytes) -> bytes | None:
        expires, _, value = (self._rows.get(key, b"") or b"0 ").partition(b" ")
        return value if int(expires) > _now() else None

    def set(self, key: bytes, value: bytes, _px: bytes, milliseconds: bytes) -> bytes:
        expires = _now() + int(milliseconds)
        self._rows.put(key, b"", b"%d %b" % (expires, value))
        heappush(self._expiring, (expires, key))
        while self._expiring[0][0] <= _now():
            _, other = heappop(self._expiring)
            if self.get(other) is None:
                self._remove(other, b"")
        return b"OK"

    # Sorted sets: a row for each member, its value the score

    def zadd(self, key: bytes, score: bytes, member: bytes) -> int:
        new = self._rows.get(key, member) is None
        self._rows.put(key, member, score)
        return int(new)

    def zrem(self, key: bytes, member: bytes) -> int:
        return int(self._remove(key, member))

    def zrangebyscore(
        self, key: bytes, _min: bytes, most: bytes, _limit: bytes, skip: bytes, count: bytes
    ) -> list[bytes]:
        """The members from -inf to a score. An index on (key, value as a number) is what a database has for it."""
        due = sorted((int(score), member) for member, score in self._rows.of(key).items() if int(score) <= int(most))
        return [member for _, member in due[int(skip) : int(skip) + int(count)]]

    # Streams: a row for each entry, by its id; the last id has a row of its own

    def xadd(self, key: bytes, _star: bytes, name: bytes, value: bytes) -> bytes:
        last = self._rows.get(key + b"/last", b"") or b"0-0"
        milliseconds, number = map(int, last.split(b"-"))
        now = _now()
        entry_id = b"%d-0" % now if now > milliseconds else b"%d-%d" % (milliseconds, number + 1)
        self._rows.put(key + b"/last", b"", entry_id)
        self._rows.put(key, entry_id, name + b" " + value)
        return entry_id

    def xlen(self, key: bytes) -> int:
        return len(self._rows.of(key))

    def xrange(self, key: bytes, entry_id: bytes, _same: bytes) -> list[Any]:
        row = self._rows.get(key, entry_id)
        return [] if row is None else [[entry_id, row.split(b" ", 1)]]

    def _remove(self, key: bytes, field: bytes) -> bool:
        there = self._rows.get(key, field) is not None
        if there:
            self._rows.put(key, field, None)
        return there


def _now() -> int:
    return time.time_ns() // 1_000_000


class Lua:
    """Runs scripts with `redis.call`, and turns values of Python into those of Lua and back as Redis does."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._lua = LuaRuntime(encoding=None, register_eval=False, register_builtins=False)
        self._globals = self._lua.globals()
        self._globals[b"redis"] = self._lua.table_from({b"call": self._call})
        self._compiled: dict[bytes, Any] = {}

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[str | bytes | int]) -> Any:
        """The script's reply."""
        function = self._compiled.get(script.sha)
        if function is None:
            function = self._compiled[script.sha] = self._lua.compile(script.text)
        self._globals[b"KEYS"] = self._lua.table_from(keys)
        self._globals[b"ARGV"] = self._lua.table_from(
            [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        )
        try:
            return _from_lua(function())
        except LuaError as error:
            raise StoreError(f"{script.name} failed: {error}") from None

    def _call(self, name: bytes, *args: bytes | float) -> Any:
        command = getattr(self._commands, name.decode().lower(), None)
        if command is None:
            raise StoreError(f"a script calls {name.decode()}, which this store does not know")
        return self._to_lua(command(*(arg if isinstance(arg, bytes) else b"%.17g" % arg for arg in args)))

    def _to_lua(self, reply: Any) -> Any:
        if isinstance(reply, list):
            return self._lua.table_from([self._to_lua(part) for part in reply])
        return False if reply is None else reply


def _from_lua(value: Any) -> Any:
    if lua_type(value) == "table":
        return [_from_lua(value[index]) for index in range(1, len(value) + 1)]
    if isinstance(value, bool):
        return 1 if value else None
    return int(value) if isinstance(value, float) else value


class DictStore(ScriptStore):
    """Accounts in dictionaries, for as long as the process lives.

    Args:
        rows: the data; stores that share it have the same accounts.
        namespace, scripts, journal_limit: as for `ScriptStore`.
    """

    blocking = True
    durable = False
    local = True

    def __init__(
        self, rows: Rows, namespace: Namespace, scripts: Scripts | None = None, *, journal_limit: int = NO_LIMIT
    ) -> None:
        super().__init__(namespace, scripts or scripts_at(0), journal_limit=journal_limit)
        self.rows = rows
        self._lua = Lua(Commands(rows))

    async def execute(self, script: Script, keys: tuple[bytes, ...], args: tuple[str | bytes | int, ...]) -> Any:
        with self.rows.step():
            return self._lua.run(script, keys, args)

    async def signal(self, account: str, event: bytes, *, unheard: bool = False) -> bool:
        return False  # there is nobody to tell

    async def close(self) -> None:
        pass


@cache
def scripts_at(clock_offset_ms: int) -> Scripts:
    """The package's scripts, with a clock that is ahead."""
    return load_scripts(clock_offset_ms=clock_offset_ms, shebang=False)


_namespaces: dict[str, Rows] = {}


def make_store(
    namespace: str, *, partitions: int = 1, clock_offset_ms: int = 0, journal_limit: int = NO_LIMIT
) -> DictStore:
    """A store of the namespace, in this process."""
    rows = _namespaces.setdefault(namespace, Rows())
    return DictStore(rows, Namespace(namespace, partitions), scripts_at(clock_offset_ms), journal_limit=journal_limit)
