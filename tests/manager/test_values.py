"""Values beside accounts, and leases that are looked up: both faces of the manager."""

import pytest

from ducto_redis import AsyncCreditManager, CreditManager
from ducto_redis.errors import ConfigError, InvalidIdError, InvalidValueError
from ducto_redis.testing import read_journal


async def test_processes_share_a_value(manager: AsyncCreditManager, other: AsyncCreditManager) -> None:
    """What one process keeps another finds, and of two that come first one is told that it came second."""
    assert await manager.get_value("u1", "job") is None
    assert await manager.put_value("u1", "job", b"\x00one", ttl=60, if_equals=b"") == b"\x00one"
    assert await other.put_value("u1", "job", b"two", ttl=60, if_equals=b"") == b"\x00one"
    assert await other.get_value("u1", "job") == b"\x00one"
    assert await other.put_value("u1", "job", b"two", ttl=60) == b"two"
    assert await manager.get_value("u1", "job") == b"two"
    assert await manager.get_value(None, "job") is None


async def test_it_is_kept_for_its_time(manager: AsyncCreditManager) -> None:
    """A value has the expiry that was asked for, in the partition of its account, and no journal entry."""
    before = read_journal(manager.store)
    await manager.put_value("u1", "job", b"one", ttl=1.5)
    keys = manager.store.namespace.account("u1")
    assert 1000 < manager.store.redis().pttl(keys.value("job")) <= 1500
    assert keys.value("job").startswith(keys.keys[0].partition(b"}")[0])
    assert read_journal(manager.store) == before


def test_threads_keep_values(blocking: CreditManager) -> None:
    """The blocking manager does the same."""
    assert blocking.put_value(None, "shared", b"one", ttl=60, if_equals=b"") == b"one"
    assert blocking.put_value(None, "shared", b"two", ttl=60, if_equals=b"other") == b"one"
    assert blocking.get_value(None, "shared") == b"one"


async def test_the_old_names_of_values_work_and_warn(manager: AsyncCreditManager, blocking: CreditManager) -> None:
    """`keep` and `kept`, with `replaces`, do what they did, and name what to write instead."""
    with pytest.warns(DeprecationWarning, match="AsyncCreditManager.put_value"):
        assert await manager.keep("u1", "old", b"one", ttl=60, replaces=b"") == b"one"
    with pytest.warns(DeprecationWarning, match="AsyncCreditManager.get_value"):
        assert await manager.kept("u1", "old") == b"one"
    with pytest.warns(DeprecationWarning, match="CreditManager.put_value"):
        assert blocking.keep("u1", "old", b"two", ttl=60, replaces=b"other") == b"one"
    with pytest.warns(DeprecationWarning, match="CreditManager.get_value"):
        assert blocking.kept("u1", "old") == b"one"


@pytest.mark.parametrize(
    ("name", "value", "ttl", "error"),
    [
        ("", b"x", 1, InvalidIdError),
        ("x" * 257, b"x", 1, InvalidIdError),
        ("x\n", b"x", 1, InvalidIdError),
        ("x", b"", 1, InvalidValueError),
        ("x", b"x" * (2**20 + 1), 1, InvalidValueError),
        ("x", "text", 1, InvalidValueError),
        ("x", b"x", 0, ConfigError),
        ("x", b"x", float("nan"), ConfigError),
    ],
)
def test_what_cannot_be_kept(
    blocking: CreditManager, name: str, value: bytes, ttl: float, error: type[Exception]
) -> None:
    """Names, values and times that are none are refused before anything is sent."""
    with pytest.raises(error):
        blocking.put_value("u1", name, value, ttl=ttl)


def test_the_reserved_account_is_nobody_s(blocking: CreditManager) -> None:
    """Values of no account are asked for by None, not by the reserved account."""
    with pytest.raises(InvalidIdError):
        blocking.get_value("@ducto", "x")


def test_find_lease(blocking: CreditManager) -> None:
    """A lease is found by its id, whatever became of it, with the transaction that closed it."""
    blocking.add_credits("u1", 10)
    lease = blocking.reserve("u1", 4, lease_id="job-1", metadata={"job": 1})
    found = blocking.find_lease("u1", "job-1")
    assert found is not None
    assert (found.state, found.amount, found.transaction_id) == ("open", 4, lease.transaction_id)
    assert found.metadata == '{"job":1}'
    settled = blocking.settle("u1", "job-1", 3)
    found = blocking.find_lease("u1", "job-1")
    assert found is not None
    assert (found.state, found.amount, found.transaction_id) == ("settled", 3, settled.transaction_id)
    assert blocking.find_lease("u1", "job-2") is None
