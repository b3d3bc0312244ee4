"""Streams of many processes race for one account on a real server, each with a hold that grows."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

from ducto_redis import CreditManager
from ducto_redis.engine.entry import decode_entry
from tests.middleware.stream_racer import ACCOUNT, STEP_TOKENS

PROCESSES = 3
STREAMS = 12
ROOT = Path(__file__).parents[3]
TOKEN_MICRO = 10_000


def race(url: str, namespace: str) -> Counter[str]:
    """How the streams of all processes ended."""
    command = [sys.executable, "-m", "tests.middleware.stream_racer", url, namespace, str(PROCESSES), str(STREAMS)]
    racers = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    ended: Counter[str] = Counter()
    for line in racers.stdout.splitlines():
        ended.update(json.loads(line))
    return ended


def test_no_stream_overruns_by_more_than_a_step(server_url: str, namespace: str) -> None:
    """However many race: none costs more than a step above its hold, the balance stays at the floor or above it,
    nothing is held afterwards, and what was charged is what the account has lost."""
    with CreditManager.from_url(server_url, namespace=namespace, timeout_seconds=30) as manager:
        manager.publish_pricing({"models": {"m": "input_tokens * 0.0001 + output_tokens * 0.01"}})
        manager.add_credits(ACCOUNT, 30)
        ended = race(server_url, namespace)
        assert ended["stopped"]
        assert ended["finished"]
        assert set(ended) == {"stopped", "finished"}

        balance = manager.get_balance(ACCOUNT)
        assert balance.balance >= 0
        assert (balance.held, manager.list_leases(ACCOUNT)) == (0, [])
        # Whoever was refused lacked a step and a prompt at the most.
        assert balance.balance < STEP_TOKENS * TOKEN_MICRO / 1_000_000 + 1

        store = manager.store
        partition = store.namespace.partition_of(ACCOUNT)
        raw = store.redis().xrange(store.namespace.journal(partition))  # type: ignore[attr-defined]
        entries = [decode_entry(partition, entry_id.decode(), fields[b"entry"]) for entry_id, fields in raw]
        held: dict[str, int] = defaultdict(int)
        charged = overrun = 0
        for entry in entries:
            lease = next((name for name, _ in entry.changes if name.startswith("lease/")), "")
            if entry.operation in ("reserve", "extend"):
                held[lease] += entry.amount
            elif entry.operation == "settle":
                overrun = max(overrun, entry.amount - held[lease])
                charged -= entry.balance_change
                assert entry.shortfall <= STEP_TOKENS * TOKEN_MICRO
        assert overrun <= STEP_TOKENS * TOKEN_MICRO
        assert charged == 30_000_000 - int(balance.balance * 1_000_000)
        operations = Counter(entry.operation for entry in entries)
        assert operations["settle"] == ended["stopped"] + ended["finished"] == operations["reserve"]
