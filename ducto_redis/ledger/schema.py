"""The ledger's tables.

Credits are BIGINT micro-credits. Every table carries the namespace, so that several may share one database, and a
prefix, so that they may share it with an application's own tables. The packaged migrations end in this schema.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

metadata = MetaData()

# Compared byte by byte: ids are the same where their bytes are, and sort alike on every server.
_Name = Text().with_variant(Text(collation="C"), "postgresql")
_Identity = BigInteger().with_variant(Integer, "sqlite")

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
    UniqueConstraint("namespace", "account", "epoch", "seq", "operation_key", name="ducto_entries_identity"),
    Index("ducto_entries_journal", "namespace", "partition", "epoch", "entry_ms", "entry_seq"),
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
)
