"""Old names work for one release, and the warning says the new name at the line that uses the old one."""

import importlib
import inspect
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ducto_redis import delivery, journal
from ducto_redis.deprecation import (
    moved_names,
    renamed_arguments,
    renamed_attribute,
    renamed_method,
)

NAMES_THAT_LEFT_THE_JOURNAL = (
    "AutoTopUp",
    "EventLetter",
    "EventTail",
    "EventWorker",
    "TopUp",
    "Webhook",
    "list_event_letters",
)


@pytest.mark.parametrize("name", NAMES_THAT_LEFT_THE_JOURNAL)
def test_names_that_left_the_journal(name: str) -> None:
    """What `ducto_redis.journal` exported of delivery is found there still, and is the same object."""
    with pytest.warns(DeprecationWarning, match=rf"journal\.{name} is deprecated: use ducto_redis\.delivery\.{name}"):
        assert getattr(journal, name) is getattr(delivery, name)


USES = """
from ducto_redis.journal import Webhook
import ducto_redis.webhooks
from ducto_redis import handlers
"""


def test_imports_warn_at_their_line(tmp_path: Path) -> None:
    """An import of an old name or module warns at the user's line, not in importlib."""
    script = tmp_path / "uses.py"
    script.write_text(USES)
    done = subprocess.run(
        [sys.executable, "-W", "default", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    warned = [line.split(": ", 2)[:2] for line in done.stderr.splitlines() if "DeprecationWarning" in line]
    assert warned == [[f"{script}:{number}", "DeprecationWarning"] for number in (2, 3, 4)]


def test_a_name_that_never_was() -> None:
    """A module with moved names has no others."""
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from ducto_redis.journal import Nothing  # noqa: F401
    with pytest.raises(AttributeError, match="module 'old' has no attribute 'other'"):
        moved_names("old", {"name": "new:name"})("other")


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("ducto_redis.webhooks", "ducto_redis.events.signature", "verify_webhook"),
        ("ducto_redis.handlers", "ducto_redis.events.handlers", "Handlers"),
        ("ducto_redis.store.conformance", "ducto_redis.testing", "StoreConformance"),
    ],
)
def test_modules_that_moved(monkeypatch: pytest.MonkeyPatch, old: str, new: str, name: str) -> None:
    """A module's old path warns when it is imported, and has what the new one has."""
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"^{old} is deprecated: use {new}$"):
        module = importlib.import_module(old)
    assert getattr(module, name) is getattr(importlib.import_module(new), name)
    with pytest.raises(AttributeError):
        module.nothing  # noqa: B018


class Box:
    def __init__(self) -> None:
        self.content = 0

    async def put(self, value: int, *, times: int = 1) -> int:
        self.content = value * times
        return self.content

    def get(self) -> int:
        return self.content

    store = renamed_method("store", "put")
    fetch = renamed_method("fetch", "get")
    inside = renamed_attribute("inside", "content")


class BigBox(Box):
    def get(self) -> int:
        return self.content * 100


async def test_renamed_methods_and_attributes() -> None:
    """Old methods, coroutine methods too, and old attributes do what the new ones do, as subclasses have them."""
    box = BigBox()
    with pytest.warns(DeprecationWarning, match=r"^BigBox\.store is deprecated: use BigBox\.put$") as caught:
        assert await box.store(3, times=2) == 6
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=r"^BigBox\.fetch is deprecated: use BigBox\.get$"):
        assert box.fetch() == 600
    with pytest.warns(DeprecationWarning, match=r"^BigBox\.inside is deprecated: use BigBox\.content$"):
        assert box.inside == 6


@renamed_arguments(when="at", whom="who")
def call(who: str, *, at: int) -> tuple[str, int]:
    return who, at


@renamed_arguments(whom="who")
async def call_async(who: str) -> str:
    return who


async def test_renamed_arguments() -> None:
    """Old keyword arguments reach the function by their new names; new ones and positions do not warn."""
    with pytest.warns(DeprecationWarning, match=r"^call\(when=\) is deprecated: use at=$") as caught:
        assert call("a", when=1) == ("a", 1)  # type: ignore[call-arg]
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=r"^call_async\(whom=\) is deprecated: use who=$") as caught:
        assert await call_async(whom="b") == "b"  # type: ignore[call-arg]
    assert caught[0].filename == __file__
    assert inspect.iscoroutinefunction(call_async)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call("a", at=1) == ("a", 1)
        assert await call_async("b") == "b"


def test_both_names_of_an_argument() -> None:
    """An argument that is given by both names is an error, as any argument that is given twice."""
    with pytest.raises(TypeError, match="'when' and 'at', two names of one argument"):
        call("a", when=1, at=2)  # type: ignore[call-arg]
