"""Every rule about money is held by a test: a script that breaks it makes that test fail."""

import copy
from functools import cache
from typing import Any

import pytest

from ducto_redis.engine.keys import Namespace
from ducto_redis.engine.operations import Operations
from ducto_redis.engine.scripts import Scripts, load_scripts, read_sources
from ducto_redis.errors import StoreError
from ducto_redis.store import CreditStore, MemoryStore
from ducto_redis.testing import OpenStore, StoreConformance
from tests.model import budget_mutants, credit_mutants, mutants
from tests.model.mutant import Mutant

SOURCES = read_sources()


MUTANTS = [*mutants.MUTANTS, *credit_mutants.MUTANTS, *budget_mutants.MUTANTS]


def opener(sources: dict[str, str]) -> OpenStore:
    """Opens memory stores that run these scripts."""
    first = MemoryStore()

    @cache
    def scripts_at(clock_offset_ms: int) -> Scripts:
        return load_scripts(clock_offset_ms=clock_offset_ms, shebang=False, sources=sources)

    def make(*, clock_offset_ms: int, journal_limit: int, partitions: int) -> CreditStore:
        store = copy.copy(first)
        store.namespace = Namespace("ducto", partitions)
        store.operations = Operations(store.namespace, scripts_at(clock_offset_ms), journal_limit=journal_limit)
        return store

    return OpenStore(make)


async def passes(test: str, sources: dict[str, str], arguments: dict[str, Any]) -> bool:
    """Whether a test of the suite passes with these scripts."""
    failure: BaseException | None = None
    try:
        await getattr(StoreConformance(), test)(opener(sources), **arguments)
    except (Exception, pytest.fail.Exception) as raised:
        failure = raised
    assert type(failure) is not StoreError, "the mutant is no script that runs"
    return failure is None


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # a test that fails has calls left over
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.script}: {mutant.this} -> {mutant.by_that}")
async def test_mutant_is_killed(mutant: Mutant) -> None:
    """The named test fails with the mutant in place."""
    text = SOURCES[mutant.script]
    assert text.count(mutant.this) == 1, f"{mutant.script} has no single {mutant.this!r}: the table is out of date"
    mutated = {**SOURCES, mutant.script: text.replace(mutant.this, mutant.by_that)}
    assert not await passes(mutant.killed_by, mutated, mutant.arguments)


@pytest.mark.parametrize(("test", "arguments"), list({str(m[3:]): m[3:] for m in MUTANTS}.values()), ids=str)
async def test_killers_pass_without_a_mutant(test: str, arguments: dict[str, Any]) -> None:
    """What kills a mutant passes with the scripts as they are, called in the same way."""
    assert await passes(test, SOURCES, arguments)
