"""The Lua scripts: one file per operation, with the pieces they share resolved into it.

A line `-- include lib/x` stands for the text of `lua/lib/x.lua`, once per script. Where it is indented, it stands
inside a function: the piece, and what it includes, is defined when that function is called, and is known nowhere else.
Lines that follow each other share what they include. That keeps the needs of few accounts from costing all of them:
defining a function takes time, each time that the script runs. What reaches Redis is one self-contained text that is
run by its SHA-1.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Protocol

from msgspec import Struct
from redis.exceptions import NoScriptError

from ducto_redis.errors import ConfigError

_INCLUDES = re.compile(r"^( *)-- include \S+\n(?:\1-- include \S+\n)*", re.MULTILINE)
_SHEBANG = re.compile(r"^#!lua[^\n]*\n")
_CLOCK = "lib/now"


class Script(Struct, frozen=True):
    """A script as it is sent: its name, its text and the SHA-1 that servers know it by."""

    name: str
    text: bytes
    sha: bytes


class Scripts(dict[str, Script]):
    """The scripts by name."""


def load_scripts(
    *, clock_offset_ms: int = 0, shebang: bool = True, sources: Mapping[str, str] | None = None
) -> Scripts:
    """Load the scripts of the package.

    Args:
        clock_offset_ms: milliseconds that are added to the server's clock; tests move time by it.
        shebang: whether the first line, which tells the server what a script may do, is kept; fakeredis refuses it.
        sources: script texts by name (`settle`, `lib/now`) instead of the package's.

    Raises:
        ConfigError: if a script includes one that does not exist, or includes itself.
    """
    sources = dict(read_sources() if sources is None else sources)
    if clock_offset_ms:
        sources[_CLOCK] = sources[_CLOCK].replace("return ", f"return {clock_offset_ms} + ")
    scripts = {}
    for name in sources:
        if name.startswith("lib/"):
            continue
        text = _resolve(name, sources, set(), ())
        if not shebang:
            text = _SHEBANG.sub("", text)
        encoded = text.encode()
        scripts[name] = Script(name, encoded, sha1(encoded, usedforsecurity=False).hexdigest().encode())
    return Scripts(scripts)


def read_sources() -> dict[str, str]:
    """Return the texts of the package's scripts by name, pieces included."""
    folder = files("ducto_redis").joinpath("lua")
    sources = {}
    for prefix, place in (("", folder), ("lib/", folder.joinpath("lib"))):
        for file in place.iterdir():
            if file.name.endswith(".lua"):
                sources[prefix + file.name.removesuffix(".lua")] = file.read_text(encoding="utf-8")
    return sources


def _resolve(name: str, sources: Mapping[str, str], seen: set[str], above: tuple[str, ...]) -> str:
    if name in above:
        raise ConfigError(f"Lua script {above[0]!r} includes itself: {' -> '.join((*above, name))}")
    if name not in sources:
        raise ConfigError(f"Lua script {above[-1]!r} includes {name!r}, which does not exist")

    def include(match: re.Match[str]) -> str:
        known = set(seen) if match[1] else seen
        text = ""
        for line in match[0].splitlines():
            wanted = line.split()[-1]
            if wanted not in known:
                text += _resolve(wanted, sources, known, (*above, name))
                known.add(wanted)
        return text

    return _INCLUDES.sub(include, sources[name])


class ScriptClient(Protocol):
    """The part of a synchronous redis-py client that `run_script` needs."""

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any: ...
    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any: ...


def run_script(client: ScriptClient, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
    """Run a script over a synchronous redis-py client and return its reply, undecoded."""
    try:
        return client.evalsha(script.sha.decode(), len(keys), *keys, *args)
    except NoScriptError:
        return client.eval(script.text.decode(), len(keys), *keys, *args)
