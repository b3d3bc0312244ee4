"""The keyspace: partitions, slots, and that no account can reach another's keys."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from ducto_redis.engine.ids import RESERVED_ACCOUNT, check_id
from ducto_redis.engine.keys import SLOTS, TAG_OF_PARTITION_0, AccountKeys, Namespace, slot_of, tag_of
from ducto_redis.errors import ConfigError, InvalidIdError

COUNTS = [1, 2, 3, 7, 16, 100]
IDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("{}:0123456789 "), min_size=1, max_size=60
).filter(lambda text: len(text.encode()) <= 128 and text != RESERVED_ACCOUNT)


def keys_of(namespace: Namespace, account: str, lease_id: str, operation_key: str) -> list[bytes]:
    keys = namespace.account(account)
    return [
        *keys.keys,
        keys.operation(f"key/{operation_key}"),
        keys.closed + lease_id.encode(),
        keys.value(operation_key),
    ]


@pytest.mark.parametrize("count", COUNTS)
def test_partitions_spread_evenly(count: int) -> None:
    """Partition n lies in the n-th share of the slots, and all shares are equal but for rounding."""
    slots = [key_slot(Namespace("ducto", count).meta(partition)) for partition in range(count)]
    for partition, slot in enumerate(slots):
        assert partition * SLOTS // count <= slot < (partition + 1) * SLOTS // count
    assert all(before < after for before, after in pairwise(slots))


@pytest.mark.parametrize("tag", [b"", b"0.0", b"15.3", "ü".encode()])
def test_slot_of_agrees_with_redis_py(tag: bytes) -> None:
    """A tag's slot is what clients of a cluster compute."""
    assert slot_of(tag) == key_slot(tag)


def test_partition_0_is_found_without_knowing_how_many_there_are() -> None:
    """The record that says how many partitions there are has the same key whatever the client believes."""
    assert slot_of(TAG_OF_PARTITION_0) == 0
    assert {tag_of(0, count) for count in (*COUNTS, SLOTS)} == {TAG_OF_PARTITION_0}


@pytest.mark.parametrize("count", [1, 3, 16])
def test_a_partition_is_one_slot(count: int) -> None:
    """Every key of a partition lies in one slot, so that every operation is single-slot."""
    namespace = Namespace("some name:with {no".replace("{", "") + " braces", count)
    for partition in range(count):
        keys = [
            namespace.meta(partition),
            namespace.journal(partition),
            namespace.due(partition),
            namespace.claim(partition, "{group}"),
            namespace.dead_letters(partition, "}{"),
        ]
        if partition == 0:
            keys += [namespace.workers("{x}"), *namespace.reserved.keys, namespace.reserved.operation("key/{x}")]
        assert len({key_slot(key) for key in keys}) == 1


@settings(max_examples=300, deadline=None)
@given(account=IDS, lease_id=IDS, operation_key=IDS)
def test_ids_never_move_a_key(account: str, lease_id: str, operation_key: str) -> None:
    """Whatever an account, lease or key is called, its keys lie in the slot of its partition."""
    namespace = Namespace("ducto", 16)
    slot = key_slot(namespace.meta(namespace.partition_of(account)))
    assert {key_slot(key) for key in keys_of(namespace, account, lease_id, operation_key)} == {slot}


@settings(max_examples=500, deadline=None)
@given(first=st.tuples(IDS, IDS, IDS), second=st.tuples(IDS, IDS, IDS))
def test_no_account_spells_another_s_key(first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
    """Two accounts share the partition's keys and no other, even in a single partition."""
    namespace = Namespace("ducto", 1)
    shared = {namespace.journal(0), namespace.due(0), namespace.meta(0)}
    first_keys, second_keys = (set(keys_of(namespace, *ids)) - shared for ids in (first, second))
    assert len(first_keys) == len(second_keys) == 5
    if first[0] != second[0]:
        assert not first_keys & second_keys


@settings(max_examples=300, deadline=None)
@given(account=IDS, rest=IDS)
def test_an_account_cannot_continue_another(account: str, rest: str) -> None:
    """An account whose name goes on like another's key, with its lease id, is not that lease."""
    namespace = Namespace("ducto", 1)
    closed = namespace.account(account).closed + rest.encode()
    forged = f"{account}:{rest}"
    if len(forged.encode()) <= 256:
        assert closed not in keys_of(namespace, forged, rest, rest)


def test_namespaces_are_apart() -> None:
    """Namespaces whose names begin alike share no key."""
    assert Namespace("a").meta(0) != Namespace("a:b").meta(0)
    assert not Namespace("a:b").meta(0).startswith(b"a:{")


@pytest.mark.parametrize(("name", "partitions"), [("a{b", 1), ("a}b", 1), ("a", 0), ("a", SLOTS + 1), ("a", -1)])
def test_refused_namespaces(name: str, partitions: int) -> None:
    """Braces would move keys; partitions are 1 to 16,384."""
    with pytest.raises(ConfigError):
        Namespace(name, partitions)


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb"])
def test_refused_namespace_names(name: str) -> None:
    """A namespace's name obeys the rules of all names."""
    with pytest.raises(InvalidIdError):
        Namespace(name)


def test_reserved_account() -> None:
    """Nobody can be the account under which the namespace's own records are journalled."""
    namespace = Namespace("ducto", 4)
    with pytest.raises(InvalidIdError):
        namespace.account(RESERVED_ACCOUNT)
    assert isinstance(namespace.reserved, AccountKeys)
    assert namespace.reserved.partition == 0


def test_limit_is_in_bytes() -> None:
    """What is counted is the bytes of the UTF-8."""
    assert check_id("ü" * 64, "a name") == "ü" * 64
    with pytest.raises(InvalidIdError, match="at most 128 bytes, got 130"):
        check_id("ü" * 65, "a name")


@pytest.mark.parametrize("value", [None, 5, b"bytes", ["list"]])
def test_ids_are_text(value: object) -> None:
    """Anything but text is refused, with its type."""
    with pytest.raises(InvalidIdError, match=type(value).__name__):
        check_id(value, "a name")  # type: ignore[arg-type]


@given(st.characters(categories=["Cc"]))
def test_control_characters_are_refused(character: str) -> None:
    """The journal separates its fields by control characters, so that none may be in an id."""
    with pytest.raises(InvalidIdError, match="control characters"):
        check_id(f"a{character}b", "a name")
