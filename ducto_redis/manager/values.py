"""Small values beside accounts, for a time: facts that processes share and that are no money."""

from typing import Any

from ducto_redis.deprecation import renamed_method, warn_renamed
from ducto_redis.engine.ids import KEY_BYTES, VALUE_BYTES, check_id
from ducto_redis.errors import InvalidValueError
from ducto_redis.manager.arguments import ttl_to_ms
from ducto_redis.manager.base import ManagerBase


def keep_by_old_name(
    manager: Any, account: str | None, name: str, value: bytes, *, ttl: float, replaces: bytes | None = None
) -> Any:
    """Call `put_value`, the new name."""
    kind = type(manager).__name__
    warn_renamed(f"{kind}.keep(replaces=)", f"{kind}.put_value(if_equals=)")
    return manager.put_value(account, name, value, ttl=ttl, if_equals=replaces)


class Values(ManagerBase):
    """The part of a manager that stores values beside accounts."""

    async def put_value(
        self, account: str | None, name: str, value: bytes, *, ttl: float, if_equals: bytes | None = None
    ) -> bytes:
        """Store a value beside an account for a time.

        It is no part of the account: it is in no journal and no ledger, and a Redis that loses its memory loses it. So
        it is for values that one can do without. Nothing is stored while the engine's memory is full.

            winner = await manager.put_value("u1", "job/7", b"process 4711", ttl=60, if_equals=b"")
            mine = winner == b"process 4711"  # the first process stores its value; all learn which one that was

        Args:
            account: the account; None for a value that belongs to none.
            name: at most 256 bytes. Names that begin with `ducto/` are the package's own.
            value: 1 byte to 1 MiB.
            ttl: seconds until the value is gone.
            if_equals: stores it only if this is the present value, b"" for none; None stores it in any case. The same
                call may be repeated: a value that equals the new one is never in its way.

        Returns:
            The value that is stored now: `value`, or the one that was not to be replaced (b"" for none).

        Raises:
            InvalidValueError, InvalidIdError, ConfigError (the time), StoreError (no memory is left),
            StoreUnavailableError
        """
        await self._ready()
        if not isinstance(value, bytes) or not 0 < len(value) <= VALUE_BYTES:
            what = f"{len(value)}" if isinstance(value, bytes) else type(value).__name__
            raise InvalidValueError(f"a value has 1 to {VALUE_BYTES} bytes, got {what}")
        ttl_ms = ttl_to_ms(ttl)
        return await self.store.keep_value(account, _check_name(name), value, ttl_ms=ttl_ms, replaces=if_equals)

    async def get_value(self, account: str | None, name: str) -> bytes | None:
        """Return the value of that name beside an account, or None.

        Raises:
            InvalidIdError, StoreUnavailableError
        """
        await self._ready()
        return await self.store.kept_value(account, _check_name(name))

    keep = keep_by_old_name
    kept = renamed_method("kept", "get_value")


def _check_name(name: str) -> str:
    return check_id(name, "the name of a value", KEY_BYTES)
