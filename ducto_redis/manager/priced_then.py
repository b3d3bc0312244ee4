"""The prices of the past: the engine that a charge was priced by."""

from ducto_redis.errors import ConfigError, PricingNotLoadedError
from ducto_redis.manager.pricing_book import PricingBook
from ducto_redis.pricing import PricingEngine


async def engine_of(book: PricingBook, version: int) -> PricingEngine | None:
    """The engine of the version that an entry names; None where it cannot be had.

    Version 0 is an engine that a manager was given: it is this manager's, or nobody's whom we could ask.
    """
    active = await book.active_or_none()
    if active is not None and active.version == version:
        return active.engine
    if version == 0:
        return None
    try:
        return (await book.version(version)).engine
    except (ConfigError, PricingNotLoadedError):
        return None
