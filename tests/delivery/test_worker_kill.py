"""Event workers are killed under load: no event is missed, and those of an account stay in order."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.process import BaseProcess

import redis

from ducto_redis import CreditEvent, CreditManager
from ducto_redis.delivery import EventWorker
from ducto_redis.events.handlers import Handlers
from ducto_redis.store.redis import RedisStore

KILLS = 5
ACCOUNTS = 20
CLAIM_SECONDS = 0.5
PATIENCE_SECONDS = 30


def work(url: str, namespace: str) -> None:
    """A worker process, whose handler writes down what it is told."""
    client = redis.Redis.from_url(url)

    def handler(event: CreditEvent) -> None:
        client.rpush(f"{namespace}-told", f"{event.account} {event.event_id}")

    handlers = Handlers()
    handlers.on("credits.*", handler)
    store = RedisStore(url, namespace=namespace, partitions=4, blocking=True)
    EventWorker(store, handlers, claim_seconds=CLAIM_SECONDS, backoff_seconds=0.01).run()


def test_workers_that_are_killed_miss_nothing(valkey_url: str, namespace: str) -> None:
    """Five times SIGKILL at a moment of chance, with another worker beside that takes over."""
    context = multiprocessing.get_context("spawn")
    client = redis.Redis.from_url(valkey_url)
    told_key = f"{namespace}-told"

    def start() -> BaseProcess:
        process = context.Process(target=work, args=(valkey_url, namespace), daemon=True)
        process.start()
        return process

    stop = threading.Event()
    expected: dict[str, list[str]] = {f"u{number}": [] for number in range(ACCOUNTS)}
    store = RedisStore(valkey_url, namespace=namespace, partitions=4, blocking=True)
    with CreditManager(store, low_balance_thresholds=[5]) as manager:
        manager.on("credits.*", lambda event: expected[event.account].append(event.event_id))

        def load() -> None:
            number = 0
            while not stop.is_set():
                account = f"u{number % ACCOUNTS}"
                manager.add_credits(account, 10)
                lease = manager.reserve(account, 6)
                manager.settle(account, lease.lease_id, 6)
                manager.deduct(account, manager.get_balance(account).balance)
                number += 1
                time.sleep(0.002)

        loading = threading.Thread(target=load)
        manager.open()
        workers = [start(), start()]
        loading.start()
        try:
            for _ in range(KILLS):
                before, deadline = client.llen(told_key), time.monotonic() + PATIENCE_SECONDS
                while client.llen(told_key) < before + 50:  # the workers are at work
                    assert time.monotonic() < deadline, "no worker took over"
                    time.sleep(0.01)
                victim = workers.pop(0)
                assert victim.pid is not None
                os.kill(victim.pid, signal.SIGKILL)
                victim.join(PATIENCE_SECONDS)
                workers.append(start())
        finally:
            stop.set()
            loading.join(PATIENCE_SECONDS)
        total = sum(map(len, expected.values()))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(set(client.lrange(told_key, 0, -1))) < total:
            assert time.monotonic() < deadline, "events were missed"
            time.sleep(0.05)
        for worker in workers:
            worker.kill()
            worker.join(PATIENCE_SECONDS)
    told: dict[str, list[str]] = {account: [] for account in expected}
    for line in client.lrange(told_key, 0, -1):
        account, event_id = line.decode().split(" ")
        if event_id not in told[account]:  # at least once: the first time counts
            told[account].append(event_id)
    assert told == expected
    client.close()
