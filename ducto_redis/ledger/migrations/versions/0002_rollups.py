"""The charges of entries, and roll-ups of them by the hour. `migration` fills them for the entries that are there."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_DETAIL = ("operation", "member", "model", "operation_type", "type")
_SUMS = (
    "entries",
    "charges",
    "charged",
    "allowance",
    "shortfall",
    "amount",
    "balance_change",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "image_input_tokens",
    "image_output_tokens",
    "tool_calls",
    "search_queries",
    "search_results",
    "web_search_calls",
    "code_exec_calls",
)


def _text(name: str, comment: str | None = None, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=default is None, server_default=default, comment=comment)


def _sum(name: str, comment: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0", comment=comment)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, _name, primary_key=True)


def _number(name: str, comment: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False, comment=comment)


def upgrade() -> None:
    for column in (
        _text("details", "of a charge: who paid, what it crossed"),
        _text("operation_type", None, "default"),
        _text("member", "who spent it, of a team"),
        _text("type", "of credits that came in or expired"),
        _sum("charged", "charged, whoever paid for it"),
        _sum("allowance", "what of it the allowance paid"),
        _text("refund_of", "the transaction that was refunded"),
        sa.Column(
            "superseded",
            sa.Integer,
            nullable=False,
            server_default="0",
            comment="1: taken back when Redis was recovered",
        ),
    ):
        op.add_column("ducto_entries", column)
    op.create_index(
        "ducto_entries_refunds",
        "ducto_entries",
        ["namespace", "refund_of"],
        sqlite_where=sa.text("refund_of IS NOT NULL"),
        postgresql_where=sa.text("refund_of IS NOT NULL"),
    )
    op.create_table(
        "ducto_account_hours",
        _key("namespace"),
        _number("hour", "hours since 1970"),
        _key("account"),
        *map(_key, _DETAIL),
        *map(_sum, _SUMS),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ducto_account_days",
        _key("namespace"),
        _key("account"),
        _number("day", "days since 1970, in UTC"),
        _key("operation"),
        _key("member"),
        *map(_sum, _SUMS),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ducto_partition_hours",
        _key("namespace"),
        _number("hour", "hours since 1970"),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        *(_key(name) for name in _DETAIL if name != "member"),
        *map(_sum, _SUMS),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ducto_measures",
        _key("namespace"),
        _key("measure"),
        _number("hour", "hours since 1970"),
        _key("account"),
        _key("member"),
        _key("model"),
        _sum("whole"),
        _sum("millionths"),
    )
    op.create_index("ducto_measures_account", "ducto_measures", ["namespace", "account"])


def downgrade() -> None:
    for table in ("ducto_measures", "ducto_partition_hours", "ducto_account_days", "ducto_account_hours"):
        op.drop_table(table)
    op.drop_index("ducto_entries_refunds", "ducto_entries")
    for column in (
        "details",
        "operation_type",
        "member",
        "type",
        "charged",
        "allowance",
        "refund_of",
        "superseded",
    ):
        op.drop_column("ducto_entries", column)
