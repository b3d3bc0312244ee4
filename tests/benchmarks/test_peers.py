"""What others would use instead makes as many charges as it was asked for, and says what it lacks."""

from pathlib import Path

import pytest

from benchmarks.peers import all_peers, peers
from benchmarks.peers.notes import notes
from benchmarks.peers.peer import check
from benchmarks.setting import Setting
from ducto_redis.benchmark.harness import BenchmarkError
from tests.servers import PostgresServer

pytest.importorskip("asyncpg", reason="`make bench-peers` installs what it compares with")
pytest.importorskip("limits.aio.storage", reason="`make bench-peers` installs what it compares with")
pytest.importorskip("coredis", reason="`make bench-peers` installs what it compares with")


def test_every_peer_is_measured(valkey_url: str, postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Each peer charges one hot account and many, beside ducto-redis; what it lacks is said."""
    setting = Setting(valkey_url, 0.01, 1, postgres_server, tmp_path)  # type: ignore[arg-type]  # without fsync
    for comparison in peers(setting):
        assert {figure.limit for figure in comparison.figures} == {peer.name for peer in all_peers()}
        for contender in comparison.contenders:
            assert contender.measure() > 0
    assert len(list(notes())) >= 4


def test_a_peer_that_charged_less_gives_no_figure() -> None:
    """A count that is not what was asked for is an error."""
    with pytest.raises(BenchmarkError, match="made 9 charges instead of 10"):
        check("it", 9, 10)
