"""Pricing documents as commands name them: a version, `active`, or a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from ducto_redis.cli.environment import open_manager
from ducto_redis.errors import ConfigError
from ducto_redis.manager import CreditManager
from ducto_redis.pricing import PricingDocument, PricingEngine

ACTIVE = "active"
ENDINGS = (".yaml", ".yml", ".json")


class NamedDocument(Struct, frozen=True):
    """A pricing document, and what people call it."""

    name: str
    document: PricingDocument


def read_file(file: Path) -> PricingDocument:
    """Return the document in a file, every formula of it compiled. Raises ConfigError, ExpressionError."""
    document = PricingDocument.from_file(file)
    PricingEngine(document)
    return document


def read_documents(*names: str) -> list[NamedDocument]:
    """Return the documents of these names. The engine is asked only where one of them is published.

    Raises:
        ConfigError: for a name that is none, or a version that does not exist.
        ExpressionError, PricingNotLoadedError, StoreError
    """
    with _manager_if(any(_version(name) is not None for name in names)) as manager:
        return [_read(name, manager) for name in names]


def _read(name: str, manager: CreditManager | None) -> NamedDocument:
    version = _version(name)
    if version is None:
        if not name.lower().endswith(ENDINGS):
            raise ConfigError(
                f"{name!r} is no pricing document: give a version's number, {ACTIVE!r}, or a file that ends in"
                f" {', '.join(ENDINGS)}"
            )
        return NamedDocument(name, read_file(Path(name)))
    assert manager is not None
    published = manager.get_pricing(version or None)
    label = f"version {published.version}" + (f" ({ACTIVE})" if published.active else "")
    return NamedDocument(label, PricingDocument.from_json(published.document))


def _version(name: str) -> int | None:
    """Return the number of a published version, 0 for the active one; None for a file."""
    if name == ACTIVE:
        return 0
    if not (name.isascii() and name.isdigit() and len(name) <= 15):
        return None
    if not int(name):
        raise ConfigError("versions of the pricing document are numbered from 1")
    return int(name)


@contextmanager
def _manager_if(needed: bool) -> Iterator[CreditManager | None]:
    if not needed:
        yield None
        return
    with open_manager() as manager:
        yield manager
