"""The keyspace.

`<ns>` is the namespace, `{tag}` the hash tag that puts all keys of a partition into one cluster slot, `<n>:<account>`
the account id behind its length in bytes, so that no account can spell another's key.

Per account:
    <ns>:{tag}:account:<n>:<account>                    hash    balance, held, seq, epoch, due, activation
    <ns>:{tag}:leases:<n>:<account>                     hash    lease id -> record
    <ns>:{tag}:operation:<n>:<account>:<operation key>  string  fingerprint and first result, expires
    <ns>:{tag}:closed:<n>:<account>:<lease id>          string  how the lease was closed and the result, expires
    <ns>:{tag}:value:<n>:<account>:<name>               string  a value that is kept beside the account, expires
Per partition:
    <ns>:{tag}:meta                    hash        namespace id, state, epoch, partitions, registered groups
    <ns>:{tag}:journal                 stream      one entry for every change to an account
    <ns>:{tag}:due                     sorted set  accounts by the time at which something of theirs falls due
    <ns>:{tag}:claim:<group>           hash        the worker that owns the partition, and its fencing token
    <ns>:{tag}:dead_letters:<group>    stream      entries that a consumer gave up
    <ns>:{tag}:signals                 stream      the latest refusals, a bounded number
    <ns>:{tag}:signal_claim:<group>    hash        as claim, of the partition's signals
    <ns>:{tag}:signal_letters:<group>  stream      as dead_letters, of the partition's signals
    <ns>:{tag}:listening               string      there while somebody listens to the signals, expires
    <ns>:{tag}:top_up:<event id>       string      how far an automatic top-up is, expires
Per namespace, in partition 0:
    <ns>:{tag}:workers:<group>         sorted set  live workers by the time until which they are believed alive
"""

from binascii import crc_hqx
from zlib import crc32

from ducto_redis.engine.ids import RESERVED_ACCOUNT, check_account, check_id
from ducto_redis.errors import ConfigError

SLOTS = 16384
DEFAULT_PARTITIONS = 16
TAG_OF_PARTITION_0 = b"0.57690"
_ACCOUNTS_KEPT = 65536


class AccountKeys:
    """The keys of one account that every operation on it takes, and its partition.

    Attributes:
        partition: the partition of the account.
        keys: the keys.
        closed: the beginning of the key of a closed lease's record, which the lease's id follows.
    """

    __slots__ = ("_operation", "_value", "closed", "keys", "partition")

    def __init__(self, namespace: "Namespace", account: str, partition: int) -> None:
        name = account.encode()
        suffix = b"%d:%b" % (len(name), name)
        self.partition = partition
        self.keys: tuple[bytes, ...] = (
            namespace.key(partition, b"account:" + suffix),
            namespace.key(partition, b"leases:" + suffix),
            namespace.journal(partition),
            namespace.due(partition),
            namespace.meta(partition),
        )
        self._operation = namespace.key(partition, b"operation:" + suffix) + b":"
        self.closed = namespace.key(partition, b"closed:" + suffix) + b":"
        self._value = namespace.key(partition, b"value:" + suffix) + b":"

    def operation(self, operation_key: str) -> bytes:
        """Return the key of an operation's record."""
        return self._operation + operation_key.encode()

    def value(self, name: str) -> bytes:
        """Return the key of a value that is kept beside the account."""
        return self._value + name.encode()


class Namespace:
    """The keys of one namespace.

    Args:
        name: up to 128 bytes, without braces.
        partitions: shares of the accounts, each in a cluster slot of its own; fixed when the namespace is created.
    """

    def __init__(self, name: str = "ducto", partitions: int = DEFAULT_PARTITIONS) -> None:
        check_id(name, "a namespace")
        if "{" in name or "}" in name:
            raise ConfigError(f"a namespace must not hold braces: {name!r}")
        if not 1 <= partitions <= SLOTS:
            raise ConfigError(f"a namespace has 1 to {SLOTS} partitions, not {partitions}")
        self.name = name
        self.partitions = partitions
        self._prefixes = [
            b"%b:{%b}:" % (name.encode(), tag_of(partition, partitions)) for partition in range(partitions)
        ]
        self.accounts = _Accounts(self)
        """The keys of an account, by its id. Raises InvalidIdError where it is none."""
        self.reserved = AccountKeys(self, RESERVED_ACCOUNT, 0)

    def partition_of(self, account: str) -> int:
        """Return the partition of an account."""
        return crc32(account.encode()) % self.partitions

    def account(self, account: str) -> AccountKeys:
        """Return the keys of an account. Raises InvalidIdError where it is none."""
        return self.accounts[account]

    def key(self, partition: int, rest: bytes) -> bytes:
        """Return the key of that name in a partition."""
        return self._prefixes[partition] + rest

    def meta(self, partition: int) -> bytes:
        """Return the key of the partition's own record."""
        return self.key(partition, b"meta")

    def journal(self, partition: int) -> bytes:
        """Return the key of the stream of the partition's changes."""
        return self.key(partition, b"journal")

    def due(self, partition: int) -> bytes:
        """Return the key of the partition's accounts by the time at which something of theirs falls due."""
        return self.key(partition, b"due")

    def claim(self, partition: int, group: str) -> bytes:
        """Return the key of a consumer group's claim on the partition."""
        return self.key(partition, b"claim:" + group.encode())

    def dead_letters(self, partition: int, group: str) -> bytes:
        """Return the key of the partition's entries that a consumer group gave up."""
        return self.key(partition, b"dead_letters:" + group.encode())

    def signals(self, partition: int) -> bytes:
        """Return the key of the stream of the partition's latest refusals."""
        return self.key(partition, b"signals")

    def signal_claim(self, partition: int, group: str) -> bytes:
        """Return the key of a consumer group's claim on the partition's signals."""
        return self.key(partition, b"signal_claim:" + group.encode())

    def signal_letters(self, partition: int, group: str) -> bytes:
        """Return the key of the partition's signals that a consumer group gave up."""
        return self.key(partition, b"signal_letters:" + group.encode())

    def listening(self, partition: int) -> bytes:
        """Return the key that exists while somebody listens to the partition's signals."""
        return self.key(partition, b"listening")

    def top_up(self, account: str, event_id: str) -> bytes:
        """Return the key of the progress of an automatic top-up that an event caused."""
        return self.key(self.partition_of(account), b"top_up:" + event_id.encode())

    def workers(self, group: str) -> bytes:
        """Return the key of the live workers of a consumer group."""
        return self.key(0, b"workers:" + group.encode())


class _Accounts(dict[str, AccountKeys]):
    """The keys of the accounts that were asked for, made at the first time: no call is made for them later."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__()
        self._namespace = namespace

    def __missing__(self, account: str) -> AccountKeys:
        check_account(account)
        if len(self) >= _ACCOUNTS_KEPT:
            self.clear()
        keys = self[account] = AccountKeys(self._namespace, account, self._namespace.partition_of(account))
        return keys


def tag_of(partition: int, partitions: int) -> bytes:
    """Return the hash tag of a partition: the first `<partition>.<n>` whose slot lies in its share of the slots.

    So the partitions spread evenly over the slots, and over the nodes of a cluster. Partition 0, whose record says how
    many there are, has one tag whatever their number: that of slot 0, which always lies in its share.
    """
    if partition == 0:
        return TAG_OF_PARTITION_0
    first, end = partition * SLOTS // partitions, (partition + 1) * SLOTS // partitions
    attempt = 0
    while True:
        tag = b"%d.%d" % (partition, attempt)
        if first <= slot_of(tag) < end:
            return tag
        attempt += 1


def slot_of(tag: bytes) -> int:
    """Return the cluster slot of a hash tag: CRC16 (XMODEM) modulo 16,384."""
    return crc_hqx(tag, 0) % SLOTS


def slot_of_key(key: bytes) -> int:
    """Return the cluster slot of a key: that of its hash tag, or of the whole key where it has none."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    return slot_of(key[start + 1 : end] if start >= 0 and end > start + 1 else key)
