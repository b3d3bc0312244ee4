"""What a worker says about itself over HTTP, from its health."""

from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ducto_redis.cli.health import metrics, readiness
from ducto_redis.journal import WorkerHealth

WELL = WorkerHealth(
    worker_id="w1",
    running=True,
    partitions=(0, 1),
    lag=7,
    dead_letters=0,
    entries_written=100,
    entries_unreadable=0,
    leases_expired=3,
    last_commit_ms=1_700_000_000_500,
    redis_error=None,
    database_error=None,
)


def samples(health: WorkerHealth, lag: dict[int, int]) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families("".join(metrics(health, lag)))
    return {(it.name, it.labels.get("partition", "")): it.value for family in families for it in family.samples}


def test_metrics() -> None:
    """The metrics are Prometheus text, the lag by partition."""
    assert samples(WELL, {0: 5, 1: 2}) == {
        ("ducto_ledger_lag_entries", "0"): 5,
        ("ducto_ledger_lag_entries", "1"): 2,
        ("ducto_worker_ready", ""): 1,
        ("ducto_worker_partitions", ""): 2,
        ("ducto_ledger_dead_letters", ""): 0,
        ("ducto_worker_entries_written_total", ""): 100,
        ("ducto_worker_entries_unreadable_total", ""): 0,
        ("ducto_worker_leases_expired_total", ""): 3,
        ("ducto_worker_last_entry_timestamp_seconds", ""): 1_700_000_000.5,
    }


def test_what_is_not_known_is_left_out() -> None:
    """While Redis is away, lag and dead letters are no numbers, rather than 0."""
    away = msgspec.structs.replace(WELL, lag=None, dead_letters=None, redis_error="gone", last_commit_ms=None)
    found = samples(away, {})
    assert found[("ducto_worker_ready", "")] == 0
    assert not {name for name, _ in found} & {
        "ducto_ledger_lag_entries",
        "ducto_ledger_dead_letters",
        "ducto_worker_last_entry_timestamp_seconds",
    }


@pytest.mark.parametrize(
    "changes", [{"running": False}, {"redis_error": "no route"}, {"database_error": "locked"}], ids=str
)
def test_not_ready(changes: dict[str, Any]) -> None:
    """A worker that does not run, or whose Redis or database is away, is not ready, and says why."""
    said = readiness(msgspec.structs.replace(WELL, **changes))
    assert said["ready"] is False
    assert len(said["problems"]) == 1


def test_dead_letters_are_loud() -> None:
    """A worker with dead letters works on, but its readiness warns of them."""
    said = readiness(msgspec.structs.replace(WELL, dead_letters=2, entries_unreadable=1))
    assert said["ready"] is True
    assert len(said["warnings"]) == 2
    assert readiness(WELL)["warnings"] == []
