"""Calls that take several steps, under one key: each step has a key of its own, made from it."""

from collections.abc import Iterator
from contextlib import contextmanager

from ducto_redis.engine.ids import KEY_BYTES, new_id
from ducto_redis.errors import StoreUnavailableError
from ducto_redis.manager.arguments import fingerprint


def key_of_call(idempotency_key: str | None) -> str:
    """The caller's key, or one that is made for this call."""
    return "call/" + new_id() if idempotency_key is None else idempotency_key


def key_of_step(key: str, step: str) -> str:
    """The key of one step of a call."""
    text = f"{key}/{step}"
    return text if len(text.encode(errors="replace")) <= KEY_BYTES else f"{fingerprint(key)}/{step}"


@contextmanager
def steps_of(key: str) -> Iterator[None]:
    """The steps of a call. Where the outcome of one is unknown, it is the whole call that is safe to repeat."""
    try:
        yield
    except StoreUnavailableError as error:
        error.operation_key = key
        raise
