"""A Redis Cluster that loses primaries and moves slots under load: every charge is made, and made once."""

import signal
import time
from pathlib import Path

import pytest

from ducto_redis.engine.keys import SLOTS, slot_of, tag_of
from ducto_redis.errors import RecoveryNeededError, StoreUnavailableError
from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.run_sync import run_sync
from ducto_redis.testing.inspection import keys_of, read_journal
from tests.clusters import Cluster, ClusterNode
from tests.failover.conftest import StartLoad
from tests.failover.load import CREDITS, LOADS, PARTITIONS

SLOT_OF_PARTITION = [slot_of(tag_of(partition, PARTITIONS)) for partition in range(PARTITIONS)]


def kill_primary(cluster: Cluster, slot: int) -> ClusterNode:
    """Kill the primary of a slot, and wait until its replica serves. Returns that."""
    primary = cluster.primary_of(slot)
    replica = cluster.replica_of(primary)
    primary.kill()
    cluster.wait_until_promoted(replica)
    return replica


def wait_for_replicas(cluster: Cluster) -> None:
    """Wait until replicas have all that their primaries have; nobody writes meanwhile."""
    for primary in cluster.primaries():
        assert primary.ask("WAIT", 1, 10_000) == 1


@pytest.mark.parametrize("load", LOADS)
def test_a_primary_dies(load: str, cluster: Cluster, start_load: StartLoad, namespace: str) -> None:
    """SIGKILL of a primary under load: all calls end in time, and each, asked for again, is charged exactly once."""
    callers = start_load(load, cluster.url)
    with cluster.hasty():
        with callers:
            kill_primary(cluster, SLOT_OF_PARTITION[0])
            callers.wait_for_charges(10 * PARTITIONS)
        callers.repeat()
        callers.check()


@pytest.mark.long
@pytest.mark.parametrize("load", LOADS)
def test_primaries_die_again_and_again(load: str, cluster: Cluster, start_load: StartLoad, namespace: str) -> None:
    """The same, with one primary after another, and nodes that come back."""
    callers = start_load(load, cluster.url)
    with callers:
        for round in range(12):
            with cluster.hasty():
                kill_primary(cluster, SLOT_OF_PARTITION[(5 * round) % PARTITIONS])
                callers.wait_for_charges(10 * PARTITIONS)
    callers.repeat()
    callers.check()


def test_a_replica_takes_over_in_an_orderly_way(cluster: Cluster, start_load: StartLoad, namespace: str) -> None:
    """CLUSTER FAILOVER loses nothing, and no caller is left without an answer."""
    callers = start_load("async", cluster.url)
    with cluster.hasty(), callers:
        replica = cluster.replica_of(cluster.primary_of(SLOTS - 1))
        replica.ask("CLUSTER FAILOVER")
        cluster.wait_until_promoted(replica)
        callers.wait_for_charges(10 * PARTITIONS)
    assert callers.unknown == {}
    callers.check()


def test_a_charge_that_the_promoted_replica_had_lost(
    cluster: Cluster, start_load: StartLoad, namespace: str, tmp_path: Path
) -> None:
    """A charge was acknowledged, read by the ledger, and lost with the primary: asked for again, it is one change."""
    callers = start_load("async", cluster.url)
    account, other = callers.accounts[0], callers.accounts[1]
    ledger = Ledger.from_url(f"sqlite:///{tmp_path}/ledger.db")
    ledger.migrate()
    worker = LedgerWorker(callers.store(), ledger)
    with cluster.hasty(), callers.manager() as manager:
        primary = cluster.primary_of(SLOT_OF_PARTITION[0])
        replica = cluster.replica_of(primary)
        manager.deduct(account, 1, idempotency_key="kept")
        worker.run_until_idle()
        wait_for_replicas(cluster)
        cut_off(primary, replica)
        first = manager.deduct(account, 2, idempotency_key="lost")
        assert not first.replayed
        worker.run_until_idle()  # the ledger has it
        primary.kill()
        replica.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        cluster.wait_until_promoted(replica)

        assert manager.deduct(account, 1, idempotency_key="kept").replayed
        again = manager.deduct(account, 2, idempotency_key="lost")
        assert not again.replayed
        assert again.balance_after == first.balance_after
        assert manager.deduct(account, 2, idempotency_key="lost").replayed
        manager.deduct(account, 3, idempotency_key="next")
        manager.deduct(other, 1, idempotency_key="next")
        worker.run_until_idle()

        expected = ["key/kept", "key/lost", "key/next"]
        journal = [entry for entry in read_journal(callers.store(), account) if entry.operation == "deduct"]
        assert [entry.operation_key for entry in journal] == expected
        entries = [entry for entry in ledger.entries(namespace, account) if entry.operation == "deduct"]
        assert [entry.operation_key for entry in reversed(entries)] == expected
        report = ledger.verify(namespace, store=callers.store())
        assert (report.failed, report.behind) == (0, 0)
    ledger.close()


def cut_off(primary: ClusterNode, replica: ClusterNode) -> None:
    """What the primary writes from now on never reaches the replica, which stands still."""
    replica.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
    primary.ask("CLIENT KILL", "TYPE", "replica")


@pytest.mark.parametrize("load", LOADS)
def test_a_slot_moves(load: str, cluster: Cluster, start_load: StartLoad, namespace: str) -> None:
    """A partition's slot moves key by key (ASK, TRYAGAIN, MOVED) under load: nobody fails, and nothing is lost."""
    callers = start_load(load, cluster.url)
    slot = SLOT_OF_PARTITION[3]
    target = next(node for node in cluster.primaries() if node is not cluster.primary_of(slot))
    with callers:
        cluster.begin_migration(slot, target)
        for moved, _ in enumerate(cluster.migrate_keys(slot, target)):
            if moved < 40:
                time.sleep(0.02)  # so that callers meet the states between
        cluster.end_migration(slot, target)
        callers.wait_for_charges(10 * PARTITIONS)
    assert callers.unknown == {}
    callers.check()
    assert cluster.primary_of(slot) is target


def test_between_two_nodes(cluster: Cluster, start_load: StartLoad) -> None:
    """Once all keys have moved, what needs no new one is answered by the next node (ASK); a charge waits."""
    callers = start_load("async", cluster.url, timeout_seconds=1)
    account, slot = callers.accounts[4], SLOT_OF_PARTITION[4]
    target = next(node for node in cluster.primaries() if node is not cluster.primary_of(slot))
    with callers.manager() as manager:
        manager.reserve(account, 7)
        cluster.begin_migration(slot, target)
        moved = list(cluster.migrate_keys(slot, target))
        assert moved
        assert manager.get_balance(account).held == 7
        with pytest.raises(StoreUnavailableError, match="TRYAGAIN"):
            manager.deduct(account, 1, idempotency_key="new")
        assert manager.get_balance(account).balance == CREDITS
        cluster.end_migration(slot, target)
        assert not manager.deduct(account, 1, idempotency_key="new").replayed
        assert manager.get_balance(account).balance == CREDITS - 1


def test_a_slot_moves_at_once(cluster: Cluster, start_load: StartLoad, namespace: str) -> None:
    """The same where the servers move it themselves, as a whole."""
    callers = start_load("async", cluster.url)
    slot = SLOT_OF_PARTITION[5]
    source = cluster.primary_of(slot)
    target = next(node for node in cluster.primaries() if node is not source)
    with callers:
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.node_id)
        cluster.wait_until_held(slot, target)
        callers.wait_for_charges(10 * PARTITIONS)
    assert callers.unknown == {}
    callers.check()


def test_the_worker_goes_on(cluster: Cluster, start_load: StartLoad, namespace: str, tmp_path: Path) -> None:
    """A worker whose partitions move and fail over under load ends with a ledger that adds up to what Redis has."""
    callers = start_load("async", cluster.url)
    with Ledger.from_url(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.migrate()
        worker = LedgerWorker(callers.store(), ledger, claim_seconds=2)
        worker.start_thread()
        with cluster.hasty(), callers:
            slot = SLOT_OF_PARTITION[9]
            target = next(node for node in cluster.primaries() if node is not cluster.primary_of(slot))
            cluster.begin_migration(slot, target)
            for _ in cluster.migrate_keys(slot, target):
                pass
            cluster.end_migration(slot, target)
            replica = cluster.replica_of(cluster.primary_of(SLOT_OF_PARTITION[0]))
            replica.ask("CLUSTER FAILOVER")
            cluster.wait_until_promoted(replica)
            callers.wait_for_charges(10 * PARTITIONS)
        assert worker.drain_and_stop(20)
        report = ledger.verify(namespace, store=callers.store())
        assert (report.failed, report.unreadable, report.behind) == (0, 0, 0)
        assert report.compared == PARTITIONS
        assert report.balance == PARTITIONS * CREDITS * 1_000_000 - len(callers.charged) * 1_000_000
    callers.check()


def test_the_worker_outlives_a_primary(cluster: Cluster, start_load: StartLoad, namespace: str, tmp_path: Path) -> None:
    """After SIGKILL of a primary the worker goes on by itself, and the ledger gets what is charged then."""
    callers = start_load("async", cluster.url)
    with Ledger.from_url(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.migrate()
        worker = LedgerWorker(callers.store(), ledger, claim_seconds=2)
        worker.start_thread()
        wait_for_replicas(cluster)
        with cluster.hasty():
            kill_primary(cluster, SLOT_OF_PARTITION[0])
            with callers.manager() as manager:
                for account in callers.accounts:
                    manager.deduct(account, 1)
            assert worker.drain_and_stop(20)
        report = ledger.verify(namespace, store=callers.store())
        assert (report.failed, report.behind, report.compared) == (0, 0, PARTITIONS)
        assert report.balance == PARTITIONS * (CREDITS - 1) * 1_000_000


def test_a_node_that_lost_its_memory(cluster: Cluster, start_load: StartLoad, namespace: str) -> None:
    """Accounts of a node whose data is gone are refused, those of the others go on, and nobody starts afresh."""
    callers = start_load("async", cluster.url)
    store = callers.store()
    lost = cluster.primary_of(SLOT_OF_PARTITION[-1])
    assert lost is not cluster.primary_of(SLOT_OF_PARTITION[0]), "partition 0 has the prices of all"
    gone = [partition for partition, slot in enumerate(SLOT_OF_PARTITION) if cluster.primary_of(slot) is lost]
    prefixes = tuple(store.namespace.key(partition, b"") for partition in gone)
    with callers.manager() as manager:
        store.redis().delete(*(key for key in keys_of(store) if key.startswith(prefixes)))
        for partition, account in enumerate(callers.accounts):
            if partition in gone:
                with pytest.raises(RecoveryNeededError):
                    manager.deduct(account, 1)
            else:
                manager.deduct(account, 1)
    with pytest.raises(RecoveryNeededError, match=f"partition {', '.join(map(str, gone))} "):
        run_sync(store.read_namespace())
