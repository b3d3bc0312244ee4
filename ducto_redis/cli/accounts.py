"""Accounts: `ducto credits add`, `ducto balance`, `grants`, `refund`, `adjust`, `freeze`, `unfreeze`, `sweep`."""

from typing import Annotated

import typer

from ducto_redis.cli.arguments import (
    Account,
    Actor,
    Key,
    Metadata,
    Reason,
    read_actor,
    read_metadata,
    read_time,
    repeatable,
)
from ducto_redis.cli.environment import open_manager
from ducto_redis.cli.explain import print_why
from ducto_redis.cli.output import Json, example, format_time, show, show_table
from ducto_redis.display import counted, format_credits
from ducto_redis.errors import LedgerError
from ducto_redis.manager.options import RefundExpired
from ducto_redis.money import to_micro

credits_app = typer.Typer(help="Give accounts credits.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(credits_app, name="credits")
    app.command(name="balance", epilog=example("ducto balance u1"))(_balance)
    app.command(name="grants", epilog=example("ducto grants u1"))(_grants)
    app.command(name="refund", epilog=example('ducto refund 6-1-1795461646172-0 2.5 --reason "wrong answer"'))(_refund)
    app.command(
        name="adjust",
        epilog=example('ducto adjust u1 -2.5 --reason "counted twice, ticket 81"'),
        context_settings={"ignore_unknown_options": True},  # an amount below zero looks like one
    )(_adjust)
    app.command(name="freeze", epilog=example('ducto freeze u1 --reason "card was stolen"'))(_freeze)
    app.command(name="unfreeze", epilog=example('ducto unfreeze u1 --reason "new card"'))(_unfreeze)
    app.command(name="sweep", epilog=example("ducto sweep --dry-run"))(_sweep)


@credits_app.callback()
def _credits() -> None:
    pass


@credits_app.command(name="add", epilog=example("ducto credits add u1 100 --type purchase --key invoice-4711"))
def _add(
    account: Annotated[str, typer.Argument(help="Who gets them.")],
    amount: Annotated[str, typer.Argument(help="Credits, above zero, with at most six places.")],
    kind: Annotated[str, typer.Option("--type", help="What they are: purchase, bonus, adjustment, ...")] = "purchase",
    expires_at: Annotated[
        str | None, typer.Option(help="When they expire: 2030-01-31, or with time and offset.", show_default=False)
    ] = None,
    priority: Annotated[
        int | None, typer.Option(help="Lower numbers are spent first; 50 is usual.", show_default=False)
    ] = None,
    key: Key = None,
    metadata: Metadata = None,
    as_json: Json = False,
) -> None:
    """Add credits to an account's balance."""
    details = read_metadata(metadata)
    until = None if expires_at is None else read_time(expires_at, "--expires-at")
    to_micro(amount)  # refused before a namespace is created for it
    with open_manager(create=True) as manager, repeatable(key, LedgerError) as own_key:
        added = manager.add_credits(
            account,
            amount,
            type=kind,
            expires_at=until,
            priority=priority,
            idempotency_key=own_key,
            metadata=details,
        )
    before = " (it was done before; nothing was added now)" if added.replayed else ""
    expiry = "" if added.expires_at is None else f" that expire at {format_time(added.expires_at)}"
    where = "in the engine and in the ledger" if added.durability == "ledger" else "in the engine"
    text = (
        f"added {format_credits(added.amount)} credits{expiry} to {account}{before}: balance"
        f" {format_credits(added.balance_after)}, available {format_credits(added.available)}\n"
        f"transaction {added.transaction_id}, {where}"
    )
    show(added, text, as_json)


def _balance(
    account: Annotated[str, typer.Argument(help="Whose balance.")],
    why: Annotated[bool, typer.Option("--why", help="Say how the balance came about, and check it.")] = False,
    as_json: Json = False,
) -> None:
    """Show what an account has, what is held of it, and what is available."""
    if why:
        print_why(account, as_json=as_json)
        return
    with open_manager() as manager:
        balance = manager.get_balance(account)
    numbers = ("balance", "held", "available", "allowance", "changes")
    show_table(
        balance,
        ("account", *numbers),
        [(balance.account, balance.balance, balance.held, balance.available, balance.allowance, balance.seq)],
        numbers=numbers,
        as_json=as_json,
    )


def _grants(account: Account, as_json: Json = False) -> None:
    """List what an account's balance is made of, in the order in which it is spent."""
    with open_manager() as manager:
        grants = manager.list_grants(account)
    show_table(
        grants,
        ("grant", "type", "priority", "remaining", "of", "added", "expires"),
        [
            (
                grant.number or "all others",
                grant.type if grant.number else "",
                grant.priority,
                grant.remaining,
                grant.amount if grant.number else "",
                grant.added_at or "",
                grant.expires_at or "never",
            )
            for grant in grants
            if grant.remaining
        ],
        numbers=("priority", "remaining", "of"),
        as_json=as_json,
        empty=f"{account} has no credits",
    )


def _refund(
    transaction: Annotated[str, typer.Argument(help="The charge: its transaction id.", show_default=False)],
    amount: Annotated[
        str | None, typer.Argument(help="Credits; all that is left of the charge by default.", show_default=False)
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why. It stays in the ledger.", show_default=False)] = None,
    to_expired: Annotated[
        RefundExpired | None, typer.Option(help="Where the part of a grant goes that has expired.", show_default=False)
    ] = None,
    key: Key = None,
    metadata: Metadata = None,
    as_json: Json = False,
) -> None:
    """Give a charge back, whole or in part, to where it came from."""
    details = read_metadata(metadata)
    with open_manager() as manager, repeatable(key) as own_key:
        refund = manager.refund_credits(
            transaction,
            amount,
            reason=reason,
            to_expired=to_expired,
            idempotency_key=own_key,
            metadata=details,
        )
    before = " (it was done before; nothing was refunded now)" if refund.replayed else ""
    lines = [
        f"refunded {format_credits(refund.amount)} credits to {refund.account}{before}: balance"
        f" {format_credits(refund.balance_after)}, available {format_credits(refund.available)}"
    ]
    if refund.allowance_restored:
        lines.append(f"{format_credits(refund.allowance_restored)} of it went back to the allowance")
    if refund.lost:
        lines.append(f"{format_credits(refund.lost)} of it could not be returned: it had expired")
    lines.append(
        f"transaction {refund.transaction_id}, {format_credits(refund.refunded)} refunded of that charge so far"
    )
    show(refund, "\n".join(lines), as_json)


def _adjust(
    account: Account,
    amount: Annotated[str, typer.Argument(help="Credits: above zero to add, below zero to take.", show_default=False)],
    reason: Reason,
    actor: Actor = None,
    force: Annotated[bool, typer.Option("--force", help="Take also what is not available.")] = False,
    key: Key = None,
    metadata: Metadata = None,
    as_json: Json = False,
) -> None:
    """Correct a balance by hand."""
    details, who = read_metadata(metadata), read_actor(actor)
    with open_manager() as manager, repeatable(key) as own_key:
        adjusted = manager.adjust_credits(
            account, amount, actor=who, reason=reason, force=force, idempotency_key=own_key, metadata=details
        )
    before = " (it was done before; nothing was changed now)" if adjusted.replayed else ""
    text = (
        f"adjusted {account} by {format_credits(adjusted.amount)} credits{before}: balance"
        f" {format_credits(adjusted.balance_after)}, available {format_credits(adjusted.available)}\n"
        f"transaction {adjusted.transaction_id}, by {who}"
    )
    show(adjusted, text, as_json)


def _freeze(account: Account, reason: Reason, actor: Actor = None, as_json: Json = False) -> None:
    """Let an account spend nothing new; what runs is settled."""
    who = read_actor(actor)
    with open_manager() as manager:
        frozen = manager.freeze(account, actor=who, reason=reason)
    show(frozen, f"{account} was frozen already" if frozen.replayed else f"{account} is frozen, by {who}", as_json)


def _unfreeze(account: Account, reason: Reason, actor: Actor = None, as_json: Json = False) -> None:
    """Let a frozen account spend again."""
    who = read_actor(actor)
    with open_manager() as manager:
        changed = manager.unfreeze(account, actor=who, reason=reason)
    show(changed, f"{account} was not frozen" if changed.replayed else f"{account} may spend again, by {who}", as_json)


def _sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would expire.")] = False,
    as_json: Json = False,
) -> None:
    """Expire credits and leases whose time is over, of accounts that nobody touches.

    `ducto worker` does so all the time.
    """
    with open_manager() as manager:
        swept = manager.sweep_expired_credits(dry_run=dry_run)
    done = "would expire" if dry_run else "expired"
    text = (
        f"{counted(swept.accounts, 'account')}: {counted(swept.grants_expired, 'grant')} with"
        f" {format_credits(swept.credits_expired)} credits and {counted(swept.leases_expired, 'lease')} {done}"
    )
    show(swept, text, as_json)
