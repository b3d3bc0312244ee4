"""Redis comes back with less than it had: the ledger keeps what it read, and tells what no longer fits."""

import shutil
from collections.abc import Callable
from pathlib import Path

from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.run_sync import run_sync
from ducto_redis.store.redis import RedisStore
from tests.journal.engine import Engine
from tests.servers import Server


def test_an_older_backup_is_restored(
    start_valkey: Callable[..., Server], namespace: str, ledger: Ledger, tmp_path: Path
) -> None:
    """What is done again under the same key is one change; what was done otherwise is kept beside it and marked."""
    server = start_valkey(appendonly="yes", appendfsync="always")
    store = RedisStore(server.url, namespace=namespace, partitions=2, blocking=True)
    engine = Engine(store)
    engine.create()
    accounts = ("same", "other", "untouched")
    for account in accounts:
        engine.add(account, 10)
    server.stop()
    shutil.copytree(server.folder, tmp_path / "backup")
    server.start()
    for account in accounts[:2]:
        engine.add(account, 10, key=f"{account}-order")
    LedgerWorker(store, ledger).run_until_idle()
    assert ledger.verify(store=store).ok

    server.kill()
    shutil.rmtree(server.folder / "appendonlydir")
    shutil.copytree(tmp_path / "backup" / "appendonlydir", server.folder / "appendonlydir")
    server.start()
    engine.add("same", 10, key="same-order")
    engine.add("other", 3, key="another-order")
    worker = LedgerWorker(store, ledger)
    worker.run_until_idle()
    run_sync(store.close())

    assert (worker.health().lag, worker.health().dead_letters) == (0, 0)
    assert [failure.account for failure in ledger.verify().failures] == ["other"]
    stored = {account: ledger.account(namespace, account) for account in accounts}
    assert {account: it.marks for account, it in stored.items() if it} == {
        "same": (),
        "other": ("fork",),
        "untouched": (),
    }
    keys = {entry.operation_key for entry in ledger.entries(namespace, "other")}
    assert keys >= {"key/other-order", "key/another-order"}
    assert len(ledger.entries(namespace, "same")) == 2
