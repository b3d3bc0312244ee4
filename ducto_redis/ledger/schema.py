"""The ledger's tables: entries, latest state, and roll-ups of entries.

Credits are BIGINT micro-credits. Every table carries the namespace, so that several may share one database, and a
prefix, so that they may share it with an application's own tables. The packaged migrations end in this schema.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint, text

from ducto_redis.engine.cause import USAGE_FIELDS

metadata = MetaData()

# Compared by bytes: ids are equal if their bytes are, and sort alike on every server.
_Name = Text().with_variant(Text(collation="C"), "postgresql")
_Identity = BigInteger().with_variant(Integer, "sqlite")

MOVEMENT_SUMS = ("entries", "charges", "charged", "allowance", "shortfall", "amount", "balance_change")
_TEXTS = ("model", "fixed_job", "operation", "service_tier")
USAGE_SUMS = tuple(name for name in USAGE_FIELDS[: USAGE_FIELDS.index("measures")] if name not in _TEXTS)
"""The numbers of a usage that have columns. Later fields of a usage are summed by name, in `measures`."""
SUMS = MOVEMENT_SUMS + USAGE_SUMS
"""The sums of roll-ups: movements of credits in micro-credits, then usage."""

entries = Table(
    "ducto_entries",
    metadata,
    Column("id", _Identity, primary_key=True, autoincrement=True, comment="order of arrival"),
    Column("namespace", _Name, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("entry_ms", BigInteger, nullable=False, comment="when it happened; first part of the journal entry's id"),
    Column("entry_seq", BigInteger, nullable=False, comment="second part of the journal entry's id"),
    Column("account", _Name, nullable=False),
    Column("seq", BigInteger, nullable=False, comment="counts the account's changes"),
    Column("operation", Text, nullable=False),
    Column("operation_key", _Name, nullable=False, comment="what makes the operation the same when asked for again"),
    Column("amount", BigInteger, nullable=False, comment="what the operation was about"),
    Column("balance_change", BigInteger, nullable=False),
    Column("shortfall", BigInteger, nullable=False, comment="part of the cost that could not be charged"),
    Column("balance_after", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False, comment="pricing document, 0 for none"),
    Column("model", Text, comment="the model that was priced, where it was one"),
    Column("cause", Text, nullable=False, comment="JSON, or empty"),
    Column("changes", Text, nullable=False, comment="names and values that were written, separated by tabs"),
    Column("details", Text, comment="of a charge: who paid, what it crossed"),
    Column("operation_type", Text, nullable=False, server_default="default"),
    Column("member", Text, comment="who spent it, of a team"),
    Column("type", Text, comment="of credits that came in or expired"),
    Column("charged", BigInteger, nullable=False, server_default="0", comment="charged, whoever paid for it"),
    Column("allowance", BigInteger, nullable=False, server_default="0", comment="what of it the allowance paid"),
    Column("refund_of", Text, comment="the transaction that was refunded"),
    Column("superseded", Integer, nullable=False, server_default="0", comment="1: taken back when Redis was recovered"),
    UniqueConstraint("namespace", "account", "epoch", "seq", "operation_key", name="ducto_entries_identity"),
    Index("ducto_entries_journal", "namespace", "partition", "epoch", "entry_ms", "entry_seq"),
    Index(
        "ducto_entries_refunds",
        "namespace",
        "refund_of",
        sqlite_where=text("refund_of IS NOT NULL"),
        postgresql_where=text("refund_of IS NOT NULL"),
    ),
)


def _sums() -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False, server_default="0") for name in SUMS]


# Each table is one tree. A batch is of one partition and a short time: the rows that it changes are adjacent.
account_hours = Table(
    "ducto_account_hours",
    metadata,
    Column("namespace", _Name, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("hour", BigInteger, primary_key=True, autoincrement=False, comment="hours since 1970"),
    Column("account", _Name, primary_key=True),
    Column("operation", _Name, primary_key=True),
    Column("member", _Name, primary_key=True),
    Column("model", _Name, primary_key=True),
    Column("operation_type", _Name, primary_key=True),
    Column("type", _Name, primary_key=True),
    *_sums(),
    sqlite_with_rowid=False,
)

account_days = Table(
    "ducto_account_days",
    metadata,
    Column("namespace", _Name, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("day", BigInteger, primary_key=True, autoincrement=False, comment="days since 1970, in UTC"),
    Column("account", _Name, primary_key=True),
    Column("operation", _Name, primary_key=True),
    Column("member", _Name, primary_key=True),
    *_sums(),
    sqlite_with_rowid=False,
)

account_weeks = Table(
    "ducto_account_weeks",
    metadata,
    Column("namespace", _Name, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("week", BigInteger, primary_key=True, autoincrement=False, comment="seven days each, since 1970, in UTC"),
    Column("account", _Name, primary_key=True),
    Column("operation", _Name, primary_key=True),
    Column("member", _Name, primary_key=True),
    *_sums(),
    sqlite_with_rowid=False,
)

# By partition, whose writers take turns anyway: without it, the writers of all partitions would wait here.
partition_hours = Table(
    "ducto_partition_hours",
    metadata,
    Column("namespace", _Name, primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False, comment="hours since 1970"),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("operation", _Name, primary_key=True),
    Column("model", _Name, primary_key=True),
    Column("operation_type", _Name, primary_key=True),
    Column("type", _Name, primary_key=True),
    *_sums(),
    sqlite_with_rowid=False,
)

measures = Table(
    "ducto_measures",
    metadata,
    Column("namespace", _Name, primary_key=True),
    Column("measure", _Name, primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False, comment="hours since 1970"),
    Column("account", _Name, primary_key=True),
    Column("member", _Name, primary_key=True),
    Column("model", _Name, primary_key=True),
    Column("whole", BigInteger, nullable=False, server_default="0"),
    Column("millionths", BigInteger, nullable=False, server_default="0"),
    Index("ducto_measures_account", "namespace", "account"),
)

accounts = Table(
    "ducto_accounts",
    metadata,
    Column("namespace", _Name, primary_key=True),
    Column("account", _Name, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("balance", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("fields", Text, nullable=False, comment="JSON object: the account's hash in Redis"),
    Column("marks", Text, nullable=False, comment="fork, gap, unreadable: what is wrong, separated by spaces"),
)

leases = Table(
    "ducto_leases",
    metadata,
    Column("namespace", _Name, primary_key=True),
    Column("account", _Name, primary_key=True),
    Column("lease_id", _Name, primary_key=True),
    Column("record", Text, nullable=False, comment="as it stands in Redis"),
)

unreadable = Table(
    "ducto_unreadable",
    metadata,
    Column("id", _Identity, primary_key=True, autoincrement=True),
    Column("namespace", _Name, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("entry_ms", BigInteger, nullable=False),
    Column("entry_seq", BigInteger, nullable=False),
    Column("account", _Name, comment="where it could be read"),
    Column("reason", Text, nullable=False),
    Column("text", LargeBinary, nullable=False),
    Index("ducto_unreadable_journal", "namespace", "partition", "entry_ms", "entry_seq"),
    Index("ducto_unreadable_account", "namespace", "account"),
)

partitions = Table(
    "ducto_partitions",
    metadata,
    Column("namespace", _Name, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("entry_ms", BigInteger, nullable=False, comment="the last journal entry that was written"),
    Column("entry_seq", BigInteger, nullable=False),
    Column(
        "open_week",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="the first that the roll-ups by the week do not hold",
    ),
)
