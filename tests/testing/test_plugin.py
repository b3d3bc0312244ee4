"""The conformance suite as a plugin of pytest, called as its users call it: in a folder of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SOME = "test_deduct or test_full_journal or test_renew or test_documents_are_journalled"
"""Tests of the suite: one that any store passes, and some that not every store can be put to."""

WITHOUT_CLOCK = """
import dict_store


def make_store(namespace):
    return dict_store.make_store(namespace)


async def make_later(namespace, *, partitions, clock_offset_ms):
    return dict_store.make_store(namespace, partitions=partitions, clock_offset_ms=clock_offset_ms)
"""
BROKEN = """
import dict_store


class Generous(dict_store.DictStore):
    async def deduct(self, account, price, key, *, floor, **others):
        return await super().deduct(account, price, key, floor=floor - 1, **others)


def make_store(namespace, *, partitions=1, clock_offset_ms=0):
    store = dict_store.make_store(namespace, partitions=partitions, clock_offset_ms=clock_offset_ms)
    return Generous(store.rows, store.namespace, store.scripts)


not_a_function = 1
"""
LOADED_WITH_THE_PLUGIN = """
import sys
import pytest
before = set(sys.modules)
import ducto_redis.testing.plugin
print(*sorted(set(sys.modules) - before))
"""


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run pytest in a folder, with the package and the example on the path."""
    path = os.pathsep.join((str(ROOT), str(EXAMPLES)))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "ducto_redis.testing.plugin", "-p", "no:valkey", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": "-p no:cacheprovider"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("paths", [[], ["--pyargs", "ducto_redis.testing"]], ids=["alone", "pyargs"])
def test_from_an_empty_folder(tmp_path: Path, paths: list[str]) -> None:
    """The option runs the suite on the stores of a function, alone or named with `--pyargs`."""
    done = run(tmp_path, *paths, "--ducto-store=dict_store:make_store", "-k", SOME, "-rs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DictStore is no JournalledStore" in done.stdout
    assert "failed" not in done.stdout


def test_what_a_store_cannot_do_is_skipped(tmp_path: Path) -> None:
    """Tests that need an argument which the function does not take are skipped, and say so; the others run."""
    (tmp_path / "mine.py").write_text(WITHOUT_CLOCK)
    done = run(tmp_path, "--ducto-store=mine:make_store", "-k", "test_deduct or test_late_settle", "-rs", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "make_store takes no clock_offset_ms: the store's clock cannot be moved" in done.stdout
    assert "test_deduct PASSED" in done.stdout
    assert "test_late_settle SKIPPED" in done.stdout
    done = run(tmp_path, "--ducto-store=mine:make_later", "-k", "test_full_journal", "-rs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "make_store takes no journal_limit: the journal has no limit" in done.stdout


def test_coroutine_function(tmp_path: Path) -> None:
    """A store may be made by a coroutine function."""
    (tmp_path / "mine.py").write_text(WITHOUT_CLOCK)
    done = run(tmp_path, "--ducto-store=mine:make_later", "-k", "test_late_settle", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_late_settle PASSED" in done.stdout


def test_store_that_breaks_a_rule_fails(tmp_path: Path) -> None:
    """A store that lets pass one micro-credit too much fails, and the failure says what was expected."""
    (tmp_path / "mine.py").write_text(BROKEN)
    done = run(tmp_path, "--ducto-store=mine:make_store", "-k", "test_deduct_is_exact_at_the_floor")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "DID NOT RAISE" in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "is MODULE:FUNCTION"),
        ("nothing:make_store", "there is no module 'nothing'"),
        ("mine:make", "has no 'make'"),
        ("mine:not_a_function", "not a function"),
    ],
)
def test_wrong_names(tmp_path: Path, name: str, message: str) -> None:
    """A function that is not there is a usage error that says what is wrong, not a suite that passes."""
    (tmp_path / "mine.py").write_text(BROKEN)
    done = run(tmp_path, f"--ducto-store={name}")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr


def test_modules_that_cannot_be_imported_say_why(tmp_path: Path) -> None:
    """An import that fails inside the function's module is not mistaken for a missing module."""
    (tmp_path / "mine.py").write_text("import something_else_that_is_missing\n")
    done = run(tmp_path, "--ducto-store=mine:make_store")
    assert done.returncode != 0
    assert "something_else_that_is_missing" in done.stderr


def test_without_the_option(tmp_path: Path) -> None:
    """The suite, named without a store, says how to name one; other tests run as ever."""
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")
    assert run(tmp_path).returncode == 0
    named = run(tmp_path, "--pyargs", "ducto_redis.testing", "-k", "test_deduct", "-rs")
    assert "--ducto-store=MODULE:FUNCTION says which stores to test" in named.stdout


def test_own_tests_are_left_alone(tmp_path: Path) -> None:
    """Paths that are named run, and nothing besides."""
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")
    done = run(tmp_path, "--ducto-store=dict_store:make_store", "test_own.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_plugin_imports_nothing_but_pytest() -> None:
    """The file that pytest loads beside any project imports nothing of the suite and no dependency."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED_WITH_THE_PLUGIN], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["ducto_redis", "ducto_redis.testing", "ducto_redis.testing.plugin"]


def test_without_pytest_asyncio(tmp_path: Path) -> None:
    """The option alone needs pytest-asyncio, and says so."""
    done = run(tmp_path, "-p", "no:asyncio", "--ducto-store=dict_store:make_store")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "pip install 'ducto-redis[conformance]'" in done.stderr
    assert run(tmp_path, "-p", "no:asyncio").returncode == pytest.ExitCode.NO_TESTS_COLLECTED
