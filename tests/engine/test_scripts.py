"""The loader of Lua scripts."""

from hashlib import sha1

import pytest
import redis

from ducto_redis.engine.scripts import load_scripts, read_sources, run_script
from ducto_redis.errors import ConfigError


def text_of(sources: dict[str, str], name: str = "main") -> str:
    return load_scripts(sources=sources)[name].text.decode()


def test_include_is_replaced_by_the_piece() -> None:
    """An include line stands for the text of the piece, in its place."""
    assert text_of({"main": "a\n-- include lib/x\nb\n", "lib/x": "x\n"}) == "a\nx\nb\n"


def test_pieces_include_pieces() -> None:
    """A piece's own includes come before it."""
    sources = {"main": "-- include lib/x\nmain\n", "lib/x": "-- include lib/y\nx\n", "lib/y": "y\n"}
    assert text_of(sources) == "y\nx\nmain\n"


def test_piece_is_included_once() -> None:
    """A piece that several pieces need is there once, before the first that needs it."""
    sources = {
        "main": "-- include lib/x\n-- include lib/y\n-- include lib/z\nmain\n",
        "lib/x": "-- include lib/z\nx\n",
        "lib/y": "-- include lib/z\ny\n",
        "lib/z": "z\n",
    }
    assert text_of(sources) == "z\nx\ny\nmain\n"


def test_only_whole_lines_are_includes() -> None:
    """An include inside a line is a comment like any other."""
    text = "x -- include lib/x\n-- include lib/x, perhaps\n"
    assert text_of({"main": text}) == text


def test_indented_include_is_known_inside_its_function_only() -> None:
    """A piece that is included inside a function is included again outside; one from outside is known inside."""
    sources = {
        "main": "-- include lib/a\nfunction f\n  -- include lib/x\nend\n-- include lib/y\n",
        "lib/a": "a\n",
        "lib/x": "-- include lib/a\n-- include lib/y\nx\n",
        "lib/y": "y\n",
    }
    assert text_of(sources) == "a\nfunction f\ny\nx\nend\ny\n"


def test_circular_include() -> None:
    """Pieces that include each other are refused, with the way round."""
    sources = {"main": "-- include lib/x\n", "lib/x": "-- include lib/y\n", "lib/y": "-- include lib/x\n"}
    with pytest.raises(ConfigError, match="main -> lib/x -> lib/y -> lib/x"):
        load_scripts(sources=sources)


def test_missing_piece() -> None:
    """A piece that does not exist is named, with who wants it."""
    with pytest.raises(ConfigError, match=r"'main' includes 'lib/nothing'"):
        load_scripts(sources={"main": "-- include lib/nothing\n"})


def test_pieces_are_no_scripts() -> None:
    """Only files of the folder itself are scripts."""
    assert set(load_scripts()) == {name for name in read_sources() if not name.startswith("lib/")}


def test_sha_is_that_of_the_text() -> None:
    """Scripts are known to servers by the SHA-1 of what is sent."""
    for script in load_scripts().values():
        assert script.sha.decode() == sha1(script.text).hexdigest()


def test_no_include_is_left() -> None:
    """What is sent is self-contained."""
    assert all(b"-- include" not in script.text for script in load_scripts().values())


def test_shebang() -> None:
    """The first line is kept for servers and stripped for fakeredis; nothing else differs."""
    whole, stripped = load_scripts(), load_scripts(shebang=False)
    for name, script in whole.items():
        first, _, rest = script.text.partition(b"\n")
        assert first.startswith(b"#!lua")
        assert stripped[name].text == rest


@pytest.mark.parametrize("name", ["settle", "release", "sweep"])
def test_closing_work_needs_no_memory(name: str) -> None:
    """What closes leases runs on a server whose memory is full; what opens them does not."""
    scripts = load_scripts()
    assert scripts[name].text.startswith(b"#!lua flags=allow-oom\n")
    for opening in ("reserve", "deduct", "add_credits", "extend"):
        assert scripts[opening].text.startswith(b"#!lua\n")


def test_clock_offset(valkey_url: str) -> None:
    """An offset moves the clock of every script, and without one nothing is changed."""
    sources = {**read_sources(), "clock": "-- include lib/now\nreturn string.format('%.0f', now())\n"}
    with redis.Redis.from_url(valkey_url) as client:
        now, later, earlier = (
            int(run_script(client, load_scripts(sources=sources, clock_offset_ms=offset)["clock"], [], []))
            for offset in (0, 3_600_000, -3_600_000)
        )
    assert now + 3_600_000 <= later < now + 3_700_000
    assert now - 3_600_000 <= earlier < now - 3_500_000


def test_run_script_survives_a_forgotten_script(valkey_url: str) -> None:
    """A script that the server does not know is sent whole."""
    script = load_scripts(sources={"echo": "return {KEYS[1], ARGV[1]} -- only here\n"})["echo"]
    with redis.Redis.from_url(valkey_url) as client:
        assert client.script_exists(script.sha.decode()) == [False]
        assert run_script(client, script, [b"k"], ["v"]) == [b"k", b"v"]
        assert client.script_exists(script.sha.decode()) == [True]
        assert run_script(client, script, [b"k"], [b"w"]) == [b"k", b"w"]
