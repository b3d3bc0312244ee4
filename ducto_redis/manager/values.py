"""Small values beside accounts, for a time: what is worth sharing between processes and is no money."""

from ducto_redis.engine.ids import KEY_BYTES, VALUE_BYTES, check_id
from ducto_redis.errors import InvalidValueError
from ducto_redis.manager.arguments import ttl_to_ms
from ducto_redis.manager.base import ManagerBase


class Values(ManagerBase):
    """The part of a manager that keeps values beside accounts."""

    async def keep(
        self, account: str | None, name: str, value: bytes, *, ttl: float, replaces: bytes | None = None
    ) -> bytes:
        """Keep a value beside an account for a time.

        It is no part of the account: nothing is journalled, no ledger knows of it, and a Redis that lost its memory has
        lost it for good. So it is for what one can do without. Nothing is kept while the engine's memory is full.

            winner = await manager.keep("u1", "job/7", b"process 4711", ttl=60, replaces=b"")
            mine = winner == b"process 4711"          # the first that comes keeps it; all are told who that was

        Args:
            account: whose; None for a value of no account in particular.
            name: of at most 256 bytes. Those that begin with `ducto/` are the package's own.
            value: 1 byte to 1 MiB.
            ttl: seconds that it is kept.
            replaces: keep it only where this is what is kept now, b"" for nothing; None: whatever is kept. The same
                call may be made again, for what is kept already is never in its way.

        Returns:
            What is kept now: `value`, or another that was not to be replaced (b"" for nothing).

        Raises:
            InvalidValueError, InvalidIdError, ConfigError (the time), StoreError (there is no room),
            StoreUnavailableError
        """
        await self._ready()
        if not isinstance(value, bytes) or not 0 < len(value) <= VALUE_BYTES:
            what = f"{len(value)}" if isinstance(value, bytes) else type(value).__name__
            raise InvalidValueError(f"a value that is kept has 1 to {VALUE_BYTES} bytes, got {what}")
        ttl_ms = ttl_to_ms(ttl)
        return await self.store.keep_value(account, _check_name(name), value, ttl_ms=ttl_ms, replaces=replaces)

    async def kept(self, account: str | None, name: str) -> bytes | None:
        """The value of that name that is kept beside an account, or None.

        Raises:
            InvalidIdError, StoreUnavailableError
        """
        await self._ready()
        return await self.store.kept_value(account, _check_name(name))


def _check_name(name: str) -> str:
    return check_id(name, "the name of a value", KEY_BYTES)
