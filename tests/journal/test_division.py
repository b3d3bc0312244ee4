"""Workers divide the partitions; a claim that was lost can do nothing."""

import time
from collections.abc import Iterator

import pytest

from ducto_redis.journal.division import Division, share_of
from ducto_redis.journal.group import FIRST, NEW, Group
from ducto_redis.store.contract import CreditStore
from tests.journal.engine import Engine

SECONDS = 3600.0


@pytest.fixture
def group(engine: Engine, store: CreditStore) -> Iterator[Group]:
    group = Group(store, "mine")
    group.register()
    return group


def settle(*divisions: Division) -> list[int]:
    """Let every worker look twice; what each owns then."""
    for _ in range(2):
        for division in divisions:
            division.renew()
    return [len(division.owned) for division in divisions]


@pytest.mark.parametrize("partitions", [1, 4, 16])
@pytest.mark.parametrize("workers", [1, 2, 3, 5, 16, 20])
def test_shares_are_even_and_complete(partitions: int, workers: int) -> None:
    """They differ by one at the most, and leave no partition out."""
    shares = [share_of(rank, workers, partitions) for rank in range(workers)]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1


def test_one_worker_owns_everything(group: Group) -> None:
    """Nobody else is there."""
    assert settle(Division(group, "a", SECONDS)) == [4]


def test_workers_that_come_and_go_share_evenly(group: Group) -> None:
    """Each partition has one owner at any time, and those that a worker leaves are taken at once."""
    a, b, c = (Division(group, name, SECONDS) for name in "abc")
    assert settle(a) == [4]
    assert sorted(settle(a, b)) == [2, 2]
    assert sorted(settle(a, b, c)) == [1, 1, 2]
    assert sorted([*a.owned, *b.owned, *c.owned]) == [0, 1, 2, 3]
    b.leave()
    assert sorted(settle(a, c)) == [2, 2]
    a.leave()
    assert settle(c) == [4]


def test_a_worker_that_died_is_taken_over(group: Group) -> None:
    """Once its claims have run out, within claim_seconds."""
    dead, other = Division(group, "dead", 0.2), Division(group, "other", SECONDS)
    dead.renew()
    began = time.monotonic()
    while len(other.owned) < 4:
        other.renew()
        assert time.monotonic() - began < 30
    assert sorted(other.owned) == [0, 1, 2, 3]


def test_whoever_lost_a_claim_can_do_nothing(group: Group, engine: Engine) -> None:
    """Reads, acknowledgements, dead letters and renewals of the old owner are refused; the new owner's entries stay."""
    (account,) = engine.accounts_of(0)
    engine.add(account)
    old = group.claim("old", {0: ""}, 1)[0]
    entries = group.read({0: (old, NEW)}, 10)[0].entries
    assert len(entries) == 1
    new = {}
    while not new:
        new = group.claim("new", {0: ""}, 3_600_000)
    engine.add(account)
    assert group.read({0: (old, NEW)}, 10)[0].status == "lost"
    assert group.read({0: (old, FIRST)}, 10)[0].status == "lost"
    assert not group.acknowledge(0, old, [entries[0][0]])
    assert not group.dead_letter(0, old, entries[0], "no", 1)
    assert group.claim("old", {0: old}, 1000) == {}
    group.release({0: old})
    assert group.claim("third", {0: ""}, 1000) == {}
    pending = group.read({0: (new[0], FIRST)}, 10)[0].entries
    assert pending == entries
    assert len(group.read({0: (new[0], NEW)}, 10)[0].entries) == 1
    assert group.acknowledge(0, new[0], [entries[0][0]])


def test_a_claim_that_ran_out_goes_on_while_nobody_wants_it(group: Group) -> None:
    """A worker that was slow is not punished."""
    token = group.claim("a", {0: ""}, 1)
    time.sleep(0.01)
    assert group.claim("a", token, 1000) == token


def test_tokens_grow(group: Group) -> None:
    """No two owners ever have the same, also after the partition was given back, or Redis forgot the last owner."""
    tokens = []
    for worker in ("a", "b", "a"):
        token = group.claim(worker, {0: ""}, 1000)
        tokens.append(token[0])
        group.release(token)
    assert tokens == ["1/a", "2/b", "3/a"]
