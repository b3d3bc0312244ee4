"""Namespaces that are filled for a measurement, and emptied after it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from ducto_redis import AsyncCreditManager
from ducto_redis.benchmark.accounts import fill
from ducto_redis.benchmark.memory import memory, used_memory
from ducto_redis.benchmark.setting import ACCOUNT, PLENTY, Setting, account_names
from tests.servers import Server


@pytest.fixture
def setting(valkey_url: str) -> Setting:
    """A setting on the session's Valkey."""
    return Setting(valkey_url, 0.01, 1)


def test_filled_accounts_are_like_those_that_were_given_credits(setting: Setting) -> None:
    """A copied account has the balance and can be charged as the first one, and names are equally long."""
    names = account_names(1500)
    assert {len(name) for name in names} == {len(ACCOUNT)}

    async def charge(namespace: str) -> None:
        async with AsyncCreditManager.from_url(setting.redis_url, namespace=namespace) as manager:
            for name in (ACCOUNT, names[0], names[-1]):
                assert (await manager.get_balance(name)).balance == PLENTY
                assert (await manager.deduct(name, 5)).balance_after == PLENTY - 5

    with setting.namespace() as namespace:
        fill(setting, namespace, names)
        asyncio.run(charge(namespace))


def test_a_namespace_is_gone_afterwards_whatever_happened(setting: Setting) -> None:
    """Ctrl-C in the middle of a measurement leaves no key; keys of others with the same beginning stay."""
    with setting.redis() as client:
        with suppress(KeyboardInterrupt), setting.namespace() as namespace:
            fill(setting, namespace, account_names(10))
            client.set(f"{namespace}:of-others", 1)
            raise KeyboardInterrupt
        assert list(client.scan_iter(f"{namespace}*")) == [f"{namespace}:of-others".encode()]
        client.delete(f"{namespace}:of-others")


def test_memory_is_what_the_server_itself_says(start_valkey: Callable[..., Server]) -> None:
    """An idle account takes what MEMORY USAGE says of its key, and its part of the table that holds the key."""
    # A server of its own: what other tests leave behind would be in the difference too.
    setting = Setting(start_valkey().url, 0.5, 1)
    (comparison,) = memory(setting)
    measured = comparison.contenders[0].measure()
    with setting.namespace() as namespace, setting.redis() as client:
        fill(setting, namespace, account_names(1))
        (key,) = client.scan_iter(f"{namespace}:{{*customer-0000000")
        said: Any = client.memory_usage(key)
        assert used_memory(client) > said
    assert comparison.contenders[0].name == "idle account"
    assert said <= measured < said + 100  # the one that was measured has been charged: it has more fields


def test_every_kind_takes_memory(setting: Setting) -> None:
    """Leases, entries and records are there when their memory is measured."""
    (comparison,) = memory(Setting(setting.redis_url, 0.1, 1))
    measured = {contender.name: contender.measure() for contender in comparison.contenders}
    assert all(40 < size < 1500 for size in measured.values()), measured
