"""Entries, accounts with their leases, unreadable entries, positions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_identity = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "ducto_entries",
        sa.Column("id", _identity, primary_key=True, autoincrement=True, comment="order of arrival"),
        sa.Column("namespace", _name, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column(
            "entry_ms",
            sa.BigInteger,
            nullable=False,
            comment="when it happened; first part of the journal entry's id",
        ),
        sa.Column("entry_seq", sa.BigInteger, nullable=False, comment="second part of the journal entry's id"),
        sa.Column("account", _name, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False, comment="counts the account's changes"),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column(
            "operation_key", _name, nullable=False, comment="what makes the operation the same when asked for again"
        ),
        sa.Column("amount", sa.BigInteger, nullable=False, comment="what the operation was about"),
        sa.Column("balance_change", sa.BigInteger, nullable=False),
        sa.Column("shortfall", sa.BigInteger, nullable=False, comment="part of the cost that could not be charged"),
        sa.Column("balance_after", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, comment="pricing document, 0 for none"),
        sa.Column("model", sa.Text, comment="the model that was priced, where it was one"),
        sa.Column("cause", sa.Text, nullable=False, comment="JSON, or empty"),
        sa.Column("changes", sa.Text, nullable=False, comment="names and values that were written, separated by tabs"),
        sa.UniqueConstraint("namespace", "account", "epoch", "seq", "operation_key", name="ducto_entries_identity"),
    )
    op.create_index(
        "ducto_entries_journal", "ducto_entries", ["namespace", "partition", "epoch", "entry_ms", "entry_seq"]
    )
    op.create_table(
        "ducto_accounts",
        sa.Column("namespace", _name, primary_key=True),
        sa.Column("account", _name, primary_key=True),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("fields", sa.Text, nullable=False, comment="JSON object: the account's hash in Redis"),
        sa.Column(
            "marks", sa.Text, nullable=False, comment="fork, gap, unreadable: what is wrong, separated by spaces"
        ),
    )
    op.create_table(
        "ducto_leases",
        sa.Column("namespace", _name, primary_key=True),
        sa.Column("account", _name, primary_key=True),
        sa.Column("lease_id", _name, primary_key=True),
        sa.Column("record", sa.Text, nullable=False, comment="as it stands in Redis"),
    )
    op.create_table(
        "ducto_unreadable",
        sa.Column("id", _identity, primary_key=True, autoincrement=True),
        sa.Column("namespace", _name, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("entry_ms", sa.BigInteger, nullable=False),
        sa.Column("entry_seq", sa.BigInteger, nullable=False),
        sa.Column("account", _name, comment="where it could be read"),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("text", sa.LargeBinary, nullable=False),
    )
    op.create_index("ducto_unreadable_journal", "ducto_unreadable", ["namespace", "partition", "entry_ms", "entry_seq"])
    op.create_index("ducto_unreadable_account", "ducto_unreadable", ["namespace", "account"])
    op.create_table(
        "ducto_partitions",
        sa.Column("namespace", _name, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("entry_ms", sa.BigInteger, nullable=False, comment="the last journal entry that was written"),
        sa.Column("entry_seq", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("ducto_partitions", "ducto_unreadable", "ducto_leases", "ducto_accounts", "ducto_entries"):
        op.drop_table(table)
