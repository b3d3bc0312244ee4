"""`ducto doctor`: finds what is wrong, and says what to do."""

import json
from collections.abc import Callable

import pytest

from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.manager import CreditManager
from ducto_redis.store import store_from_url
from tests.cli.conftest import Ducto
from tests.clusters import Cluster
from tests.sentinels import Sentinels
from tests.servers import Server

PRICING = {"models": {"m": "1"}}

StartValkey = Callable[..., Server]


def examine(ducto: Ducto, *, status: int) -> dict[str, dict[str, str]]:
    result = ducto("doctor", "--json")
    assert result.exit_code == status, result.output
    said = json.loads(result.stdout)
    assert said["ok"] is (status == 0)
    return {finding["check"]: finding for finding in said["findings"]}


def statuses(findings: dict[str, dict[str, str]]) -> dict[str, str]:
    return {check: finding["status"] for check, finding in findings.items()}


@pytest.fixture
def whole(engine: str, namespace: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A namespace with credits, prices and a ledger that has everything. Returns the ledger."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    monkeypatch.setenv("DUCTO_LEDGER_URL", url)
    ledger = Ledger.from_url(url)
    ledger.migrate()
    with CreditManager.from_url(engine, namespace=namespace) as manager:
        manager.publish_pricing(PRICING)
        manager.add_credits("u1", 5)
    LedgerWorker(store_from_url(engine, namespace=namespace, blocking=True), ledger).run_until_idle()
    return ledger


@pytest.mark.usefixtures("whole")
def test_all_is_well(ducto: Ducto) -> None:
    """A whole system is exit status 0; that no worker runs just now is a warning."""
    findings = examine(ducto, status=0)
    assert statuses(findings) == {
        "connection": "ok",
        "version": "ok",
        "role": "ok",
        "eviction": "ok",
        "memory": "ok",
        "append-only file": "ok",
        "scripts": "ok",
        "clock": "ok",
        "namespace": "ok",
        "group ledger": "warning",
        "pricing": "ok",
        "ledger": "ok",
        "ledger and engine": "ok",
    }
    assert findings["version"]["detail"].startswith("Valkey ")
    text = ducto("doctor").stdout
    assert "maxmemory-policy is noeviction" in text
    assert "-> start `ducto worker`" in text


def test_redis_is_examined_too(
    redis_server_url: str, namespace: str, ducto: Ducto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is told from Valkey, and is fine in a supported version."""
    monkeypatch.setenv("DUCTO_REDIS_URL", redis_server_url)
    monkeypatch.setenv("DUCTO_NAMESPACE", namespace)
    findings = examine(ducto, status=0)
    assert findings["version"]["detail"].startswith("Redis ")


def test_server_that_evicts_is_an_error(
    start_valkey: StartValkey, ducto: Ducto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that can evict accounts is an error; a server without an append-only file, and full, are warnings."""
    server = start_valkey(maxmemory_policy="allkeys-lru", appendonly="no", maxmemory="1mb")
    monkeypatch.setenv("DUCTO_REDIS_URL", server.url)
    findings = examine(ducto, status=1)
    assert findings["eviction"]["status"] == "error"
    assert "noeviction" in findings["eviction"]["advice"]
    assert findings["append-only file"]["status"] == "warning"
    assert findings["memory"]["status"] == "warning"
    assert findings["namespace"]["status"] == "warning"


def test_replica_is_an_error(
    valkey_server: Server, start_valkey: StartValkey, ducto: Ducto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica takes no writes, so its URL is the wrong one."""
    replica = start_valkey(replicaof=f"127.0.0.1 {valkey_server.port}")
    monkeypatch.setenv("DUCTO_REDIS_URL", replica.url)
    assert examine(ducto, status=1)["role"]["status"] == "error"


@pytest.fixture
def in_cluster(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster that the environment names, with a namespace in it."""
    monkeypatch.setenv("DUCTO_REDIS_URL", cluster.url)
    monkeypatch.setenv("DUCTO_NAMESPACE", namespace)
    with CreditManager.from_url(cluster.url, namespace=namespace) as manager:
        manager.publish_pricing(PRICING)
        manager.add_credits("u1", 5)
    return cluster


def test_cluster(in_cluster: Cluster, ducto: Ducto) -> None:
    """Every node is looked at; what is well everywhere is said once."""
    findings = examine(ducto, status=1)  # entries wait, and no worker runs
    assert {check for check, finding in findings.items() if finding["status"] != "ok"} == {"group ledger", "ledger"}
    assert findings["cluster"]["detail"] == "3 primaries serve all slots"
    assert findings["replicas"]["detail"] == "every primary has one, 6 nodes in total"
    assert findings["eviction"]["detail"] == "maxmemory-policy is noeviction"
    assert {"version", "memory", "append-only file", "clock", "scripts", "namespace", "pricing"} <= set(findings)
    assert "role" not in findings


def test_cluster_with_a_wrong_node(in_cluster: Cluster, ducto: Ducto) -> None:
    """What is wrong on one node alone, be it a replica, is found there, and the node is named."""
    wrong = in_cluster.replica_of(in_cluster.primary_of(0))
    wrong.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        findings = examine(ducto, status=1)
    finally:
        wrong.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert findings[f"eviction 127.0.0.1:{wrong.port}"]["status"] == "error"
    assert "eviction" not in findings
    assert findings["version"]["status"] == "ok"


def test_cluster_with_a_node_that_is_down(in_cluster: Cluster, ducto: Ducto) -> None:
    """A replica that is down is named; its primary has no replica."""
    primary = in_cluster.primary_of(0)
    down = in_cluster.replica_of(primary)
    with in_cluster.hasty():
        down.kill()
        findings = examine(ducto, status=1)
    assert findings[f"node 127.0.0.1:{down.port}"]["status"] == "error"
    assert findings["replicas"]["status"] == "warning"
    assert f"127.0.0.1:{primary.port}" in findings["replicas"]["detail"]


def test_primary_under_sentinel(
    sentinels: Sentinels, namespace: str, ducto: Ducto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a service that sentinels watch, the primary is looked at."""
    monkeypatch.setenv("DUCTO_REDIS_URL", sentinels.url)
    monkeypatch.setenv("DUCTO_NAMESPACE", namespace)
    findings = examine(ducto, status=0)
    assert findings["role"]["detail"] == "primary, 2 replicas"


def test_no_server(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is an error, and what it would have said is left out."""
    monkeypatch.setenv("DUCTO_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    findings = examine(ducto, status=1)
    assert statuses(findings) == {"connection": "error", "ledger": "warning"}
    assert "hunter2" not in ducto("doctor").output


@pytest.mark.usefixtures("whole")
def test_other_number_of_partitions(ducto: Ducto, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong number of partitions is an error that names the right one."""
    monkeypatch.setenv("DUCTO_PARTITIONS", "8")
    findings = examine(ducto, status=1)
    assert findings["namespace"]["advice"] == "set DUCTO_PARTITIONS=16"
    assert findings["ledger and engine"]["status"] == "warning"


@pytest.mark.usefixtures("whole")
def test_lost_partition(ducto: Ducto, engine: str, namespace: str) -> None:
    """A partition whose record is gone is an error: a server lost its data."""
    store = store_from_url(engine, namespace=namespace, blocking=True)
    store.redis().delete(store.namespace.meta(3))
    findings = examine(ducto, status=1)
    assert findings["namespace"]["status"] == "error"
    assert "partition 3" in findings["namespace"]["detail"]


@pytest.mark.usefixtures("whole")
def test_emptied_redis(ducto: Ducto, engine: str, namespace: str) -> None:
    """A Redis that forgot a namespace that the ledger knows is an error."""
    store = store_from_url(engine, namespace=namespace, blocking=True)
    for key in store.redis().scan_iter(f"{namespace}:*"):
        store.redis().delete(key)
    findings = examine(ducto, status=1)
    assert "lost its data" in findings["ledger and engine"]["detail"]


@pytest.mark.usefixtures("whole")
def test_rolled_back_redis(ducto: Ducto, engine: str, namespace: str) -> None:
    """A journal that ends before what the ledger has written is an error: Redis was rolled back."""
    store = store_from_url(engine, namespace=namespace, blocking=True)
    partition = store.namespace.partition_of("u1")
    store.redis().delete(store.namespace.journal(partition))
    findings = examine(ducto, status=1)
    assert "rolled back" in findings["ledger and engine"]["detail"]


def test_ledger_without_tables(ducto: Ducto, engine: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that was not migrated is an error that says what to do."""
    monkeypatch.setenv("DUCTO_LEDGER_URL", f"sqlite:///{tmp_path}/new.db")
    finding = examine(ducto, status=1)["ledger"]
    assert finding["status"] == "error"
    assert "ducto ledger migrate" in finding["detail"]


@pytest.mark.usefixtures("whole")
def test_nobody_writes_the_ledger(ducto: Ducto) -> None:
    """Entries that wait, and no worker to write them, are an error."""
    ducto("credits", "add", "u1", "1", "--type", "bonus")
    finding = examine(ducto, status=1)["group ledger"]
    assert finding["status"] == "error"
    assert finding["detail"] == "1 entry behind, 0 workers"


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize(("group", "status"), [("ledger", "error"), ("webhooks", "warning")])
def test_dead_letters(group: str, status: str, ducto: Ducto, engine: str, namespace: str) -> None:
    """Dead letters of the ledger are an error, those of another group a warning."""
    store = store_from_url(engine, namespace=namespace, blocking=True)
    store.redis().hset(store.namespace.meta(0), f"group/{group}", "1")
    store.redis().xadd(store.namespace.dead_letters(0, group), {"entry_id": "1-0", "reason": "x"})
    result = ducto("doctor", "--json")
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert findings[f"dead letters {group}"]["status"] == status
    assert findings[f"dead letters {group}"]["detail"] == "1 entry given up"


@pytest.mark.usefixtures("whole")
def test_refusals_that_event_workers_gave_up(ducto: Ducto, engine: str, namespace: str) -> None:
    """They are in streams of their own, and counted beside the entries."""
    store = store_from_url(engine, namespace=namespace, blocking=True)
    store.redis().hset(store.namespace.meta(0), "group/handlers", "1")
    store.redis().xadd(store.namespace.signal_letters(3, "handlers"), {"entry_id": "1-0", "reason": "x"})
    for entries, said in ((0, "1 refusal given up"), (2, "2 entries and 1 refusal given up")):
        for _ in range(entries):
            store.redis().xadd(store.namespace.dead_letters(0, "handlers"), {"entry_id": "1-0", "reason": "x"})
        result = ducto("doctor", "--json")
        findings = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
        found = findings["dead letters handlers"]
        assert (found["status"], found["detail"]) == ("warning", said)
        assert "ducto events dead-letters --group handlers" in found["advice"]


def test_no_pricing(ducto: Ducto, engine: str, namespace: str) -> None:
    """No active pricing document is a warning."""
    ducto("credits", "add", "u1", "1", "--type", "bonus")
    result = ducto("doctor", "--json")
    findings = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert findings["pricing"]["status"] == "warning"


def test_doctor_changes_nothing(ducto: Ducto, engine: str, namespace: str) -> None:
    """The doctor leaves no key behind."""
    store = store_from_url(engine, namespace=namespace, blocking=True)
    examine(ducto, status=0)
    assert store.redis().keys(f"{namespace}:*") == []
