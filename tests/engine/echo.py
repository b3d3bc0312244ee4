"""An operation whose reply is its argument, so that replies that went astray are seen."""

from ducto_redis.engine.operation import Operation
from ducto_redis.engine.scripts import load_scripts

_ECHO = load_scripts(sources={"echo": "#!lua flags=no-writes\nreturn ARGV[1]\n"})["echo"]


def echo(value: int, *, size: int = 0) -> Operation[int]:
    """An operation that replies `value`, padded to `size` bytes on its way."""
    text = str(value).encode().ljust(size)
    return Operation(_ECHO, 0, (), (text,), lambda _, reply: int(reply), operation_key=f"key {value}")
