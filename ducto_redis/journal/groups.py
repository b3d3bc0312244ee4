"""The consumer groups of a namespace."""

from ducto_redis.engine.scripts import run_script
from ducto_redis.errors import ConfigError
from ducto_redis.journal.group import JournalStore
from ducto_redis.suggestions import there_are

_GROUP_FIELD = b"group/"


def registered_groups(store: JournalStore) -> list[str]:
    """Return the names of the registered groups, sorted."""
    reply = run_script(store.redis(), store.scripts["read_partition"], (store.namespace.meta(0),), ())
    return sorted(field.removeprefix(_GROUP_FIELD).decode() for field in reply[::2] if field.startswith(_GROUP_FIELD))


def check_group(store: JournalStore, name: str) -> None:
    """Raise ConfigError, which says which groups there are, where none of that name is registered."""
    groups = registered_groups(store)
    if name not in groups:
        raise ConfigError(f"no consumer group {name!r} is registered; there are {there_are(name, groups)}")
