"""Roll-ups of accounts by partition and time, and by the week. Weeks are made of days by the writer's next batch."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_HOUR = ("hour", "account", "operation", "member", "model", "operation_type", "type")
_DAY = ("day", "account", "operation", "member")
_WEEK = ("week", "account", "operation", "member")
_COMMENTS = {
    "hour": "hours since 1970",
    "day": "days since 1970, in UTC",
    "week": "seven days each, since 1970, in UTC",
}
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


def _key(name: str) -> sa.Column[str] | sa.Column[int]:
    if name in _COMMENTS:
        return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False, comment=_COMMENTS[name])
    return sa.Column(name, _name, primary_key=True)


def _sum(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def _create(table: str, key: tuple[str, ...]) -> None:
    op.create_table(
        table,
        _key("namespace"),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        *map(_key, key),
        *map(_sum, _SUMS),
        sqlite_with_rowid=False,
    )


def _replace(table: str, made: str, columns: str, rows: str) -> None:
    """Put the table `made`, filled with the rows, in the place of the other."""
    op.execute(f"INSERT INTO {made} ({columns}, {', '.join(_SUMS)}) {rows}")
    op.drop_table(table)
    op.rename_table(made, table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER INDEX {made}_pkey RENAME TO {table}_pkey")


def upgrade() -> None:
    for table, key in (("ducto_account_hours", _HOUR), ("ducto_account_days", _DAY)):
        _create(f"{table}_new", key)
        old = ", ".join(f"it.{name}" for name in (*key, *_SUMS))
        rows = (
            f"SELECT it.namespace, a.partition, {old} FROM {table} it"
            " JOIN ducto_accounts a ON a.namespace = it.namespace AND a.account = it.account"
            f" ORDER BY it.namespace, a.partition, {', '.join(f'it.{name}' for name in key)}"
        )
        _replace(table, f"{table}_new", f"namespace, partition, {', '.join(key)}", rows)
    _create("ducto_account_weeks", _WEEK)
    op.add_column(
        "ducto_partitions",
        sa.Column(
            "open_week",
            sa.BigInteger,
            nullable=False,
            server_default="0",
            comment="the first that the roll-ups by the week do not hold",
        ),
    )


def downgrade() -> None:
    op.drop_column("ducto_partitions", "open_week")
    op.drop_table("ducto_account_weeks")
    for table, first, key in (
        ("ducto_account_hours", ("namespace", "hour", "account"), _HOUR),
        ("ducto_account_days", ("namespace", "account", "day"), _DAY),
    ):
        rest = tuple(name for name in key if name not in first)
        op.create_table(f"{table}_old", *map(_key, (*first, *rest)), *map(_sum, _SUMS), sqlite_with_rowid=False)
        columns = ", ".join((*first, *rest))
        rows = f"SELECT {columns}, {', '.join(_SUMS)} FROM {table} ORDER BY {columns}"
        _replace(table, f"{table}_old", columns, rows)
