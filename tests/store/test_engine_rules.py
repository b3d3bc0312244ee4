"""What the engine must get right beyond the conformance suite: sizes, numbers and turns that few accounts see."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ducto_redis.engine.operation import CapRule, Charge, Price
from ducto_redis.engine.operations import Operations
from ducto_redis.engine.scripts import load_scripts, read_sources
from ducto_redis.engine.state import AccountState
from ducto_redis.errors import CapReachedError
from ducto_redis.run_sync import run_sync
from ducto_redis.store import RedisStore
from ducto_redis.testing import assert_fold, read_journal
from ducto_redis.testing.caller import Caller, Document, Plan
from ducto_redis.testing.calls import ACCOUNT, MINUTE_MS, key, micro, terms

START_MS = 1_700_000_000_000

SetClock = Callable[[int], None]


@pytest.fixture
def store(server_url: str, namespace: str) -> Iterator[RedisStore]:
    """A store on a server whose clock stands still until a test moves it."""
    store = RedisStore(server_url, namespace=namespace, partitions=1, blocking=True, timeout_seconds=30)
    clock = f"local function now()\n  return tonumber(redis.call('GET', '{namespace}:clock'))\nend\n"
    store.operations = Operations(
        store.namespace, load_scripts(sources={**read_sources(), "lib/now": clock}, shebang=False)
    )
    run_sync(store.create_namespace())
    yield store
    run_sync(store.close())


@pytest.fixture
def set_clock(store: RedisStore) -> SetClock:
    """Moves the clock to so many milliseconds after the start, where it begins."""

    def set_clock(after_ms: int) -> None:
        store.redis().set(f"{store.namespace.name}:clock", START_MS + after_ms)

    set_clock(0)
    return set_clock


def fields_of(store: RedisStore) -> dict[bytes, bytes]:
    """The account's hash."""
    fields: dict[Any, Any] = store.redis().hgetall(store.namespace.account(ACCOUNT).keys[0])
    return fields


def last_charge(store: RedisStore) -> Charge:
    """The account's last charge, as a refund names it."""
    entry = read_journal(store)[-1]
    return Charge(entry.transaction_id, entry.charged, entry.details, START_MS)


def refund(store: RedisStore, charge: Charge, amount: int | None, name: str) -> None:
    """Give a part of a charge back."""
    run_sync(store.refund(ACCOUNT, charge, amount, key(name), expired_to_balance=True, cause=b""))


# Accounts with very many fields.


def test_a_plan_changes_for_any_number_of_members_at_once(store: RedisStore, set_clock: SetClock) -> None:
    """A change writes all that it changes, however many caps those are: none is journalled and not written."""
    capped = Plan(caps=(CapRule("members", "total", 50),))
    caller = Caller(store, Document({"capped": capped, "free": Plan()}))
    run_sync(store.create_team(ACCOUNT, "a school", "m0", key("team"), cause=b""))
    run_sync(caller.add(100))
    run_sync(caller.set_plan("capped"))
    run_sync(caller.deduct(1, member="m0"))
    fields = fields_of(store)
    copies = {b"caps/member/m%d" % number: fields[b"caps/member/m0"] for number in range(1, 4500)}
    store.redis().hset(store.namespace.account(ACCOUNT).keys[0], mapping=dict[Any, Any](copies))

    run_sync(caller.set_plan("free"))

    left = fields_of(store)
    assert not [name for name in left if name.startswith(b"caps/")]
    assert int(left[b"seq"]) == read_journal(store)[-1].seq
    assert {name.decode(): value.decode() for name, value in left.items()} == AccountState.fold(
        read_journal(store)
    ).fields


def test_a_team_of_any_size_is_described(store: RedisStore, set_clock: SetClock) -> None:
    """A description shows the plan's cap of every member, those who never spent among them."""
    document = Document({"capped": Plan(caps=(CapRule("members", "total", 50),))})
    caller = Caller(store, document)
    run_sync(store.create_team(ACCOUNT, "a school", "m0", key("team"), cause=b""))
    run_sync(caller.set_plan("capped"))
    member = fields_of(store)[b"member/m0"]
    copies = {b"member/m%d" % number: member for number in range(1, 9000)}
    store.redis().hset(store.namespace.account(ACCOUNT).keys[0], mapping=dict[Any, Any](copies))

    described = run_sync(caller.describe())

    assert len(described.caps) == 9000


# Spend caps.


def test_the_caps_of_a_plan_that_was_given_change_with_the_first_published_document(
    store: RedisStore, set_clock: SetClock
) -> None:
    """Caps taken from a document that was never published are not those of the first one that is."""
    before = Document({"p": Plan(caps=(CapRule("account", "total", 500),))}, activation=0)
    caller = Caller(store, before)
    run_sync(caller.add(1000))
    run_sync(caller.set_plan("p"))
    run_sync(caller.deduct(10))
    caller.document = before.next({"p": Plan(caps=(CapRule("account", "total", 100),))})

    with pytest.raises(CapReachedError) as refused:
        run_sync(caller.deduct(Price(91, 1, 1), "too much"))

    assert micro(refused.value.limit) == 100
    run_sync(caller.deduct(Price(90, 1, 1), "all of it"))
    assert run_sync(caller.cap("total")) == (100, 0)


def test_a_refund_of_what_was_cleared_makes_no_room_in_a_rolling_cap(store: RedisStore, set_clock: SetClock) -> None:
    """What a rolling cap counts at a time never falls below nothing: what is spent then counts whole."""
    caller = Caller(store)
    run_sync(caller.add(1000))
    cap = run_sync(caller.set_cap("day", 100, rolling=True))
    run_sync(caller.deduct(50, "before"))
    charge = last_charge(store)
    run_sync(store.clear_cap(ACCOUNT, "account", cap.cap_id, key("clear"), cause=b""))
    run_sync(caller.deduct(30, "after"))
    refund(store, charge, None, "back")

    run_sync(caller.deduct(100, "the limit"))

    assert run_sync(caller.cap("day")) == (100, 0)
    assert_fold(store)


@pytest.mark.parametrize("charged", [123_456_789_013, 2**53 - 1])
def test_a_cap_gives_back_exactly_what_was_refunded(store: RedisStore, set_clock: SetClock, charged: int) -> None:
    """The share that a cap gets back is exact where part and charge multiply to more than a double holds."""
    caller = Caller(store)
    run_sync(caller.add(2**53 - 1))
    run_sync(caller.set_cap("total", 2**53 - 1))
    run_sync(caller.set_cap("total", 2**53 - 1, scope="model/m"))
    part = charged // 3 * 2 + 1
    run_sync(caller.deduct(charged, models=(("m", part),)))
    charge = last_charge(store)

    refunded = 0
    for number in range(1, 30):
        amount = charged // 31 + number * 7
        refund(store, charge, amount, f"back {number}")
        refunded += amount
        assert run_sync(caller.cap("total")) == (charged - refunded, 0)
        assert run_sync(caller.cap("total", "model/m")) == (part - part * refunded // charged, 0)
    refund(store, charge, None, "the rest")
    assert run_sync(caller.cap("total")) == run_sync(caller.cap("total", "model/m")) == (0, 0)


# What fell due.


def test_a_description_counts_what_expired_leases_charged_their_members(store: RedisStore, set_clock: SetClock) -> None:
    """What members spent by leases that have expired is shown before anything writes it, whosever leases they were."""
    caller = Caller(store)
    run_sync(store.create_team(ACCOUNT, "a team", "ann", key("team"), cause=b""))
    run_sync(store.set_member(ACCOUNT, "bob", "member", key("bob"), cause=b""))
    run_sync(caller.add(100))
    for number, member in enumerate(("ann", "bob", "ann", "bob"), 1):
        run_sync(caller.reserve(f"l{number}", number, terms(on_expiry="charge"), member=member))
    set_clock(MINUTE_MS)

    shown = run_sync(caller.describe())

    assert shown.team is not None
    assert {member.user: micro(member.spent) for member in shown.team.members} == {"ann": 4, "bob": 6}
    run_sync(store.sweep_partition(0))
    assert run_sync(caller.describe()).team == shown.team
    assert_fold(store)
