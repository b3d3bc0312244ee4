"""The bare scripts that operations are measured beside."""

import shutil
from collections.abc import Callable

import pytest

from ducto_redis import AsyncCreditManager
from ducto_redis.benchmark.bare import RETURN_1, Command, plain_socket, redis_benchmark, redis_benchmark_can
from ducto_redis.benchmark.harness import BenchmarkError
from ducto_redis.benchmark.setting import ACCOUNT, Setting
from ducto_redis.benchmark.works import WORKS, Work
from ducto_redis.results import Balance


@pytest.fixture
def setting(valkey_url: str) -> Setting:
    """A setting on the session's Valkey, with next to nothing to do."""
    return Setting(valkey_url, 0.001, 1)


async def balance_after(
    setting: Setting, namespace: str, work: Work, do: Callable[[list[Command]], object]
) -> tuple[Balance, Balance]:
    """The account before and after `do` is given the work's commands."""
    commands = await work.commands(setting, namespace)
    async with AsyncCreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
        before = await manager.get_balance(ACCOUNT)
        with setting.redis() as client:
            for command in commands:
                client.script_load(command.script.text)
        do(commands)
        return before, await manager.get_balance(ACCOUNT)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
async def test_plain_socket_does_the_work(setting: Setting, work: Work) -> None:
    """Commands that were recorded once and sent with ids of their own change the account as that many calls do."""
    with setting.namespace() as namespace:
        before, after = await balance_after(
            setting, namespace, work, lambda commands: plain_socket(setting.redis_url, commands, 150)
        )
    assert after.seq - before.seq == 150 * work.journalled
    assert after.held == before.held


@pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="redis-benchmark is not installed")
async def test_redis_benchmark_does_the_work(setting: Setting) -> None:
    """redis-benchmark charges once for each of its commands."""
    deduct = next(work for work in WORKS if work.name == "deduct")
    with setting.namespace() as namespace:
        before, after = await balance_after(
            setting, namespace, deduct, lambda commands: redis_benchmark(setting.redis_url, commands[0], 500)
        )
    assert after.seq - before.seq >= 500


async def test_a_refused_script_gives_no_figure(setting: Setting) -> None:
    """A bare script that is refused does not count as fast: it is an error."""
    deduct = next(work for work in WORKS if work.name == "deduct")
    with setting.namespace() as namespace:
        (command,) = await deduct.commands(setting, namespace)
        with setting.redis() as client:
            client.script_load(command.script.text)
            client.delete(*command.keys)  # the namespace's own record among them
        with pytest.raises(BenchmarkError, match="recovery_needed"):
            plain_socket(setting.redis_url, [command], 10)


@pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="redis-benchmark is not installed")
def test_redis_benchmark_is_given_no_password() -> None:
    """A URL with a password never reaches a command line that other users of the machine can read."""
    commands = [Command(RETURN_1, (), ())]
    assert redis_benchmark_can("redis://127.0.0.1:6379/0", commands)
    assert not redis_benchmark_can("redis://:secret@127.0.0.1:6379/0", commands)
    assert not redis_benchmark_can("redis://user@127.0.0.1:6379/0", commands)
    assert not redis_benchmark_can("redis://127.0.0.1:6379/0?password=secret", commands)
