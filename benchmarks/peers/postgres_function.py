"""A function written by hand in PostgreSQL, called through a pool of asyncpg connections."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from benchmarks.peers.peer import CHARGE, Peer, check
from benchmarks.setting import Setting
from ducto_redis.benchmark.setting import some_of
from ducto_redis.benchmark.throughput import rate_in_flight

CONNECTIONS = 16
"""With which it does best here: more wait longer for the lock of the one account that everyone charges."""

_NAME = f"PostgreSQL function, asyncpg, {CONNECTIONS} connections"
_LACKS = (
    "holds (leases), prices, several limits in the same step; the answer that a repeated charge had. It has an"
    " idempotency key (unique index), a row for each charge, and a balance that cannot go below 0"
)
# The row is inserted first, so that the account's row is locked for as short a time as can be. The table of accounts
# has room in its pages for updates in place.
_SCHEMA = """
CREATE TABLE accounts (id text PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE charges (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL,
    idempotency_key text NOT NULL,
    amount bigint NOT NULL,
    charged_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account, idempotency_key)
);
CREATE FUNCTION charge(payer text, request text, micro bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    left_over bigint;
BEGIN
    INSERT INTO charges (account, idempotency_key, amount) VALUES (payer, request, micro) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN (SELECT balance FROM accounts WHERE id = payer);
    END IF;
    UPDATE accounts SET balance = balance - micro
        WHERE id = payer AND balance >= micro RETURNING balance INTO left_over;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'insufficient credits';
    END IF;
    RETURN left_over;
END
$$;
"""


def _rate(setting: Setting, accounts: Sequence[str], full: int, *, commit: str) -> float:
    assert setting.postgres is not None
    drawn = some_of(accounts, full + full // 10, setting.seed)

    async def measured(url: str) -> float:
        pool: Any = await asyncpg.create_pool(
            url, min_size=CONNECTIONS, max_size=CONNECTIONS, server_settings={"synchronous_commit": commit}
        )
        async with pool:
            await pool.execute(_SCHEMA)
            await pool.copy_records_to_table("accounts", records=[(account, 10**15) for account in accounts])
            await pool.execute("ANALYZE")

            async def charge(number: int) -> None:
                await pool.fetchval("SELECT charge($1, $2, $3)", drawn[number], f"{number:012d}", CHARGE)

            rate = await rate_in_flight(charge, full)
            check(_NAME, await pool.fetchval("SELECT count(*) FROM charges"), len(drawn))
            return rate

    with setting.postgres.database() as url:
        return asyncio.run(measured(url))


PEERS = [
    Peer(f"{_NAME}, synchronous_commit = on", partial(_rate, commit="on"), True, f"{_LACKS}. Loses nothing"),
    Peer(
        f"{_NAME}, synchronous_commit = off",
        partial(_rate, commit="off"),
        True,
        f"{_LACKS}. Loses under a second when the machine dies, as Redis does here",
    ),
]
