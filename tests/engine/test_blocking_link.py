"""The link of threads: one socket for all, whoever reads, whoever is interrupted, whoever forks."""

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

from ducto_redis.engine.blocking_link import BlockingLink
from ducto_redis.engine.urls import read_topology
from ducto_redis.errors import StoreUnavailableError
from ducto_redis.run_sync import run_sync
from ducto_redis.store import RedisStore
from ducto_redis.testing import assert_fold
from ducto_redis.testing.calls import add, deduct, numbers_of
from tests.engine.echo import echo
from tests.engine.proxy import Proxy

PLENTY = 30.0
THREADS = 32


@pytest.fixture
def link(proxy: Proxy) -> Iterator[BlockingLink]:
    """A link through the proxy, connected."""
    link = BlockingLink(read_topology(proxy.url), timeout_seconds=PLENTY)
    run_sync(link.run(echo(0)))
    yield link
    run_sync(link.close())


@pytest.fixture
def store(proxy: Proxy, namespace: str) -> Iterator[RedisStore]:
    """A blocking store through the proxy, connected, its namespace created."""
    store = RedisStore(proxy.url, namespace=namespace, partitions=1, blocking=True, timeout_seconds=PLENTY)
    run_sync(store.create_namespace())
    yield store
    run_sync(store.close())


def ask(link: BlockingLink, value: int, timeout_seconds: float = PLENTY) -> int:
    return run_sync(link.run(echo(value), timeout_seconds=timeout_seconds))


def in_threads(work: Callable[[int], object], count: int = THREADS) -> list[object]:
    """What `work` returns or raises, called in that many threads at once."""
    barrier = threading.Barrier(count)

    def run(number: int) -> object:
        barrier.wait()
        try:
            return work(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_everybody_gets_their_own_reply(link: BlockingLink, proxy: Proxy) -> None:
    """Threads that call at the same time share one connection and never mix their replies."""

    def work(thread: int) -> bool:
        values = range(thread * 1000, thread * 1000 + 50)
        return [ask(link, value) for value in values] == list(values)

    assert in_threads(work) == [True] * THREADS
    assert proxy.connections == 1


def test_deadline(link: BlockingLink, proxy: Proxy) -> None:
    """Threads without more time get an error with their key, leader and followers; later replies go to nobody."""
    proxy.hold_replies()
    results = in_threads(lambda number: ask(link, number, timeout_seconds=0.2), 8)
    assert all(isinstance(result, StoreUnavailableError) for result in results)
    assert {result.operation_key for result in results} == {f"key {number}" for number in range(8)}  # type: ignore[attr-defined]
    proxy.release_replies()
    assert in_threads(lambda number: ask(link, number)) == list(range(THREADS))


def test_patient_threads_outlast_impatient_ones(link: BlockingLink, proxy: Proxy) -> None:
    """A leader that gives up hands over: those that can wait get their replies."""
    proxy.hold_replies()
    given_up = threading.Semaphore(0)

    def work(number: int) -> object:
        if number % 2:
            return ask(link, number)
        try:
            return ask(link, number, timeout_seconds=0.2)
        finally:
            given_up.release()

    def release() -> None:
        for _ in range(4):
            given_up.acquire()
        proxy.release_replies()

    releasing = threading.Thread(target=release)
    releasing.start()
    results = in_threads(work, 8)
    releasing.join()
    assert results[1::2] == [1, 3, 5, 7]
    assert all(isinstance(result, StoreUnavailableError) for result in results[::2])


class Interrupted(BaseException):
    """What the signal handler raises."""


def test_interrupted_leader_loses_nobody_s_reply(store: RedisStore, proxy: Proxy) -> None:
    """The thread that reads for the others is interrupted; they get their own replies, and are charged once each."""
    run_sync(add(store, 1001))
    run_sync(deduct(store, 1, "so that the script is known"))

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    proxy.hold_replies()
    followers: list[object] = []

    def follow_and_interrupt() -> None:
        proxy.wait_for_replies()  # the main thread leads, and waits for a reply that is held back

        def release() -> None:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            interrupted.wait()
            proxy.release_replies()

        releasing = threading.Thread(target=release)
        releasing.start()
        followers.extend(in_threads(lambda number: run_sync(deduct(store, 1, f"follower {number}")).replayed, 8))
        releasing.join()

    interrupted = threading.Event()
    following = threading.Thread(target=follow_and_interrupt)
    following.start()
    try:
        with pytest.raises(Interrupted):
            run_sync(deduct(store, 1, "leader"))
    finally:
        interrupted.set()
        following.join()
        signal.signal(signal.SIGUSR1, before)
    assert all(isinstance(replayed, bool) for replayed in followers)
    assert run_sync(deduct(store, 1, "leader")).replayed
    assert run_sync(numbers_of(store)) == (991, 0, 991)
    assert_fold(store)


@pytest.mark.parametrize(
    "failure", ["cut_before_next_reply", "half_close_before_next_reply", "cut_in_the_middle_of_next_reply"]
)
def test_charged_once_though_the_reply_was_lost(store: RedisStore, proxy: Proxy, failure: str) -> None:
    """An operation that took effect and whose connection was lost is asked for again, and takes effect once."""
    run_sync(add(store, 101))
    run_sync(deduct(store, 1, "so that the script is known"))
    getattr(proxy, failure)()
    assert run_sync(deduct(store, 10)).replayed
    assert run_sync(numbers_of(store)) == (90, 0, 90)
    assert proxy.connections == 2


def test_everything_in_flight_is_done_once(store: RedisStore, proxy: Proxy) -> None:
    """A connection that is cut under many threads costs none of them, and doubles none."""
    run_sync(add(store, 1000))
    proxy.cut_before_next_reply()
    results = in_threads(lambda number: run_sync(deduct(store, 1, f"charge {number}")).amount)
    assert not [result for result in results if isinstance(result, Exception)]
    assert run_sync(numbers_of(store)) == (1000 - THREADS, 0, 1000 - THREADS)
    assert_fold(store)


def test_silent_connection_is_replaced(proxy: Proxy) -> None:
    """A connection from which nothing comes any more is given up while there is time for another, for every thread."""
    link = BlockingLink(read_topology(proxy.url), timeout_seconds=2.0)
    ask(link, 0)
    proxy.silence()
    with pytest.raises(StoreUnavailableError):
        ask(link, 1, timeout_seconds=0.1)
    assert in_threads(lambda number: ask(link, number, timeout_seconds=2.0)) == list(range(THREADS))
    proxy.cut()
    proxy.silence_next_connection()
    assert in_threads(lambda number: ask(link, number, timeout_seconds=2.0)) == list(range(THREADS))
    run_sync(link.close())


def test_forked_child_makes_its_own_connection(link: BlockingLink, proxy: Proxy) -> None:
    """Parent and child both go on with the same link, each over a connection of its own."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
        child = os.fork()
    if child == 0:
        try:
            answers = [ask(link, value) for value in range(100, 150)]
            os.write(write_end, b"right" if answers == list(range(100, 150)) else b"wrong")
        finally:
            os._exit(0)
    os.close(write_end)
    assert [ask(link, value) for value in range(50)] == list(range(50))
    os.waitpid(child, 0)
    with os.fdopen(read_end, "rb") as answer:
        assert answer.read() == b"right"
    assert ask(link, 7) == 7
    assert proxy.connections == 2


def test_nobody_listens() -> None:
    """A server that is not there is an error, for every thread, when its time runs out."""
    link = BlockingLink(read_topology("redis://127.0.0.1:1/0"), timeout_seconds=0.2)
    results = in_threads(lambda number: ask(link, number, 0.2), 8)
    assert all(isinstance(result, StoreUnavailableError) for result in results)
    run_sync(link.close())


def test_closed_link_connects_again(link: BlockingLink, proxy: Proxy) -> None:
    """A link that was closed is connected again when it is used again."""
    run_sync(link.close())
    assert ask(link, 1) == 1
    assert proxy.connections == 2


def test_scripts_are_flushed_under_traffic(store: RedisStore) -> None:
    """A server that forgets its scripts again and again gets them again; every charge is made, once."""
    run_sync(add(store, 1000))

    def work(thread: int) -> None:
        for number in range(10):
            if thread == 0:
                store.redis().script_flush()
            else:
                run_sync(deduct(store, 1, f"charge {thread}.{number}"))

    assert in_threads(work, 11) == [None] * 11
    assert run_sync(numbers_of(store)) == (900, 0, 900)
    assert_fold(store)
