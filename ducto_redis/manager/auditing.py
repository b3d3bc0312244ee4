"""Who changed something by hand, and why: what finance asks for, years later."""

from ducto_redis.engine.ids import NAME_BYTES, check_id

REASON_BYTES = 512


def check_actor(actor: str) -> str:
    """Return who does it. Raises InvalidIdError."""
    return check_id(actor, "an actor", NAME_BYTES)


def check_reason(reason: str) -> str:
    """Return why: one line of at most 512 bytes. Raises InvalidIdError."""
    return check_id(reason, "a reason", REASON_BYTES)
