"""`ducto events`: follow what happens, and run handlers and webhooks."""

import importlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ducto_redis.cli.environment import namespace, open_manager, open_store
from ducto_redis.cli.output import Json, example, format_time, print_line, show, show_table
from ducto_redis.cli.times import parse_time
from ducto_redis.cli.worker import log_to_stderr, stopped_by_signals
from ducto_redis.display import counted, format_credits
from ducto_redis.errors import ConfigError
from ducto_redis.events.handlers import EVERY_EVENT, Handlers, check_event_type
from ducto_redis.events.types import CreditEvent

if TYPE_CHECKING:
    from ducto_redis.delivery.tail import EventTail

events_app = typer.Typer(help="Follow what happens to accounts, and run handlers and webhooks.", no_args_is_help=True)

logger = logging.getLogger("ducto_redis.worker")

_POLL_SECONDS = 0.2

HandlersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--handlers",
        help="module:name of a Handlers, or of a function that takes every event. Several times for several.",
        show_default=False,
    ),
]
WebhookOption = Annotated[
    list[str] | None,
    typer.Option("--webhook", help="URL that events are sent to. Several times for several.", show_default=False),
]
WebhookEventsOption = Annotated[
    str, typer.Option(help="Types of events that the webhooks get, separated by commas; credits.* for all.")
]
GroupOption = Annotated[str, typer.Option(help="The consumer group. Groups do not wait for each other.")]

DEFAULT_GROUP = "handlers"
DEFAULT_WEBHOOK_EVENTS = (
    "credits.low_balance,credits.overdraft,credits.cap_warning,credits.cap_reached,credits.expired,"
    "credits.lease_expired,credits.plan_changed"
)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(events_app, name="events")


@events_app.command(name="tail", epilog=example("ducto events tail --type credits.low_balance --since 1h"))
def _tail(
    account: Annotated[str | None, typer.Option(help="Only this account's.", show_default=False)] = None,
    event_type: Annotated[
        str | None, typer.Option("--type", help="Only this type, such as credits.settled.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Begin there: 90s, 15m, 2h, 7d, or a time in ISO 8601. By default now.", show_default=False),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.", show_default=False)] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for what comes, or end.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Print events as they happen, refusals too, until Ctrl-C.

    Nothing waits for it. With --since it begins with what the journal still holds; what all its consumers have done
    already is in the ledger.
    """
    from ducto_redis.delivery.tail import EventTail

    if event_type is not None:
        check_event_type(event_type)
    begin = None if since is None else parse_time(since.strip(), "--since", datetime.now(UTC))
    with open_manager():
        pass  # says so where there is no such namespace
    with open_store() as store:
        tail = EventTail(store, since=begin)
        printed = 0
        for event in _follow(tail) if follow else tail.read_all():
            if (account is not None and event.account != account) or not _is_of(event, event_type):
                continue
            print_line(event.to_json().decode() if as_json else _line(event))
            sys.stdout.flush()
            printed += 1
            if printed == count:
                break
        if tail.unreadable:
            typer.echo(f"{counted(tail.unreadable, 'entry', 'entries')} could not be read", err=True)


@events_app.command(
    name="worker",
    epilog=example("ducto events worker --handlers billing:handlers", "ducto events worker --webhook https://..."),
)
def _worker(
    handlers: HandlersOption = None,
    webhook: WebhookOption = None,
    webhook_events: WebhookEventsOption = DEFAULT_WEBHOOK_EVENTS,
    group: GroupOption = DEFAULT_GROUP,
    max_attempts: Annotated[int, typer.Option(min=1, help="Calls before an event becomes a dead letter.")] = 8,
    claim_seconds: Annotated[
        float, typer.Option(min=0.1, help="Within which the work of a worker that died is taken over.")
    ] = 30.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log warnings and errors only.")] = False,
) -> None:
    """Call handlers and webhooks with events, until SIGTERM or Ctrl-C.

    Each event at least once, in order for each account. Start as many as you like: those of one group divide the work,
    and take over what a dead one left. Webhooks are signed with the secret in DUCTO_WEBHOOK_SECRET.
    """
    from ducto_redis.delivery.worker import EventWorker

    registered = _collect(handlers, webhook, webhook_events)
    with open_manager(create=True):
        pass  # the namespace exists now, and Redis has not lost it
    log_to_stderr(logging.WARNING if quiet else logging.INFO)
    with open_store() as store:
        worker = EventWorker(store, registered, group=group, max_attempts=max_attempts, claim_seconds=claim_seconds)
        with stopped_by_signals(worker):
            logger.info("event worker %s of namespace %r, group %r", worker.worker_id, namespace(), group)
            if letters := worker.count_dead_letters():
                logger.error("there are %s: see `ducto events dead-letters`", counted(letters, "dead letter"))
            worker.run()
    logger.info("stopped")


@events_app.command(name="dead-letters", epilog=example("ducto events dead-letters --group handlers"))
def _dead_letters(
    group: GroupOption = DEFAULT_GROUP,
    limit: Annotated[int, typer.Option(min=1, help="At the most, of each partition.")] = 20,
    as_json: Json = False,
) -> None:
    """List what handlers and webhooks gave up, with the reasons."""
    from ducto_redis.delivery.dead_letters import list_event_letters
    from ducto_redis.journal.groups import check_group

    with open_manager(), open_store() as store:
        letters = list_event_letters(store, group, limit=limit)
        if not letters and group != DEFAULT_GROUP:  # that one is there with the first worker
            check_group(store, group)
    show_table(
        letters,
        ("given up", "account", "events", "attempts", "reason"),
        [(it.given_up_at, it.account, ", ".join(it.event_types), it.attempts, it.reason) for it in letters],
        numbers=("attempts",),
        as_json=as_json,
        empty=f"group {group} has no dead letters",
    )


@events_app.command(name="retry", epilog=example("ducto events retry --handlers billing:handlers"))
def _retry(
    handlers: HandlersOption = None,
    webhook: WebhookOption = None,
    webhook_events: WebhookEventsOption = DEFAULT_WEBHOOK_EVENTS,
    group: GroupOption = DEFAULT_GROUP,
    as_json: Json = False,
) -> None:
    """Call handlers and webhooks once more with what was given up; what succeeds is removed.

    All of them are called: those that had succeeded before get the event again, under the same event id.
    """
    from ducto_redis.delivery.worker import EventWorker
    from ducto_redis.journal.groups import check_group

    registered = _collect(handlers, webhook, webhook_events)
    with open_manager(), open_store() as store:
        report = EventWorker(store, registered, group=group).retry_dead_letters()
        if not (report.succeeded or report.failed) and group != DEFAULT_GROUP:
            check_group(store, group)
    show(report, f"{counted(report.succeeded, 'dead letter')} done and removed, {report.failed} failed again", as_json)
    if report.failed:
        raise typer.Exit(1)


@events_app.command(name="secret", epilog=example("ducto events secret"))
def _secret() -> None:
    """Print a new secret for webhooks."""
    from ducto_redis.events.signature import new_webhook_secret

    print_line(new_webhook_secret())


def _collect(handlers: list[str] | None, webhooks: list[str] | None, webhook_events: str) -> Handlers:
    """Return the handlers that the options name. Raises ConfigError."""
    from ducto_redis.delivery.webhook import Webhook

    collected = Handlers()
    for name in handlers or ():
        found = _import(name)
        for event_type, handler in found.registered if isinstance(found, Handlers) else (("credits.*", found),):
            collected.on(event_type, handler)
    for url in webhooks or ():
        webhook = Webhook(url)
        for event_type in webhook_events.split(","):
            collected.on(event_type.strip(), webhook)
    if not collected:
        raise ConfigError("say which handlers to call: --handlers module:name, or --webhook URL")
    return collected


def _import(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"--handlers is module:name, such as billing.events:handlers, not {name!r:.80}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--handlers {name}: {error}") from error
    return found


def _follow(tail: "EventTail") -> Iterator[CreditEvent]:
    listen_again = 0.0
    while True:
        if time.monotonic() >= listen_again:
            listen_again = time.monotonic() + tail.listen()
        yield from tail.read_all()
        time.sleep(_POLL_SECONDS)


def _is_of(event: CreditEvent, event_type: str | None) -> bool:
    return event_type is None or event_type in EVERY_EVENT or event.type == event_type


def _line(event: CreditEvent) -> str:
    """Format an event for people: time, type, account and fields."""
    said = " ".join(
        f"{name}={_value(getattr(event.data, name))}"
        for name in event.data.__struct_fields__
        if getattr(event.data, name) not in (None, (), False)
    )
    return f"{format_time(event.time)}  {event.type:<24} {event.account or '-'}  {said}"


def _value(value: object) -> str:
    if isinstance(value, Decimal):
        return format_credits(value)
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    text = str(value)
    return repr(text) if " " in text else text
