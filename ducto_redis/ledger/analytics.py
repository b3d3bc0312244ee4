"""Analytics of spending, answered from roll-ups. See `Analytics`."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from typing import Any, TypeAlias, get_args
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection, func, select

from ducto_redis.analytics_results import (
    AggregateStats,
    Anomaly,
    DaySpend,
    MemberSpend,
    ModelSpend,
    TransactionPage,
    Usage,
    UsageGroup,
    UserSpend,
)
from ducto_redis.engine.text import EPOCH, MILLISECOND, milliseconds_from
from ducto_redis.errors import ConfigError, TeamNotFoundError
from ducto_redis.ledger.anomalies import Sensitivity, find_anomalies
from ducto_redis.ledger.database import Database
from ducto_redis.ledger.rollups import COUNTED_BY_NAME, HOUR_MS
from ducto_redis.ledger.rows import name_of
from ducto_redis.ledger.schema import USAGE_SUMS, accounts, measures
from ducto_redis.ledger.sums import BEGINNING_MS, END_MS, Group, Question, hours_with_entries, measured, sums_of
from ducto_redis.ledger.transaction_pages import read_page
from ducto_redis.money import Amount, from_micro
from ducto_redis.suggestions import did_you_mean
from ducto_redis.windows import check_time_zone, window_bounds

SPENDING = ("deduct", "settle", "expire", "release", "refund")
_NAMES = ("entries", "charges", "charged", "allowance", "amount", "shortfall")
_MEASURES_LISTED = 20
_TEAM_FIELD = "team"

Times: TypeAlias = tuple[int, int]


class Analytics:
    """Analytics of one namespace of a ledger. Blocking.

    Times are half-open, [start, end): a charge at `end` is outside. A naive datetime is in UTC; None is open. Every
    grouping adds up to the same total. An answer reads one state of the ledger.

    Args:
        database: the ledger's database.
        namespace: the namespace of the entries.

    Raises:
        ConfigError: from every method, if an argument is wrong.
        LedgerError, LedgerUnavailableError: from every method.
    """

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database
        self._namespace = namespace

    def spend_by_user(self, start: datetime | None = None, end: datetime | None = None) -> list[UserSpend]:
        """Return the spending of each account, the largest charges first."""
        spent = self._spent(("account",), times(start, end))
        return [UserSpend(account=group[1], **spend.parts()) for group, spend in _ranked(spent)]

    def top_users(self, limit: int = 10, start: datetime | None = None, end: datetime | None = None) -> list[UserSpend]:
        """Return the accounts that were charged most."""
        check_limit(limit)
        spent = self._spent(("account",), times(start, end))
        return [UserSpend(account=group[1], **spend.parts()) for group, spend in _ranked(spent)[:limit]]

    def spend_by_model(
        self, start: datetime | None = None, end: datetime | None = None, *, account: str | None = None
    ) -> list[ModelSpend]:
        """Return the spending on each model, the largest first."""
        spent = self._spent(("model",), times(start, end), account)
        return [ModelSpend(model=group[1] or None, **spend.parts()) for group, spend in _ranked(spent)]

    def spend_by_member(
        self, team: str, start: datetime | None = None, end: datetime | None = None
    ) -> list[MemberSpend]:
        """Return the spending of each member of a team, the largest first. Together they are the team's spending."""
        spent = self._spent(("member",), times(start, end), team)
        return [MemberSpend(member=group[1] or None, **spend.parts()) for group, spend in _ranked(spent)]

    def check_team(self, account: str) -> None:
        """Raise TeamNotFoundError if the account is not a team in the ledger."""
        with self._database.read() as connection:
            _check_team(connection, self._namespace, account)

    def daily_spend(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        time_zone: str = "UTC",
        account: str | None = None,
    ) -> list[DaySpend]:
        """Return the spending on each day of a time zone, in order, without days on which nothing moved.

        Args:
            time_zone: the time zone of the days, an IANA name.
            account: an account, or None for all.
        """
        with self._database.read() as connection:
            question = self._question((), times(start, end), account)
            question, zone = _by_days(connection, question, time_zone)
            spent = _spent(connection, question)
        return [
            DaySpend(day=_local_day(question.bounds[period], time_zone, zone), **spend.parts())
            for (period,), spend in sorted(spent.items(), key=lambda item: item[0])
        ]

    def aggregate_stats(
        self, start: datetime | None = None, end: datetime | None = None, *, account: str | None = None
    ) -> AggregateStats:
        """Return the totals of all movements, and the top account and model."""
        period = times(start, end)
        with self._database.read() as connection:
            by_account = _spent(connection, self._question(("account",), period, account))
            days, _ = _by_days(connection, self._question((), period, account), "UTC")
            busy_days = sum(1 for spend in _spent(connection, days).values() if spend.charges)
            moved = sums_of(
                connection,
                Question(self._namespace, period, ("model", "operation", "type"), account),
                (*_NAMES, "balance_change"),
            )
        total = _Spend()
        for spend in by_account.values():
            total.add(spend)
        by_model: dict[Group, _Spend] = {}
        added: dict[str, int] = {}
        adjusted = expired = lost = 0
        for (period_at, model, operation, credits_type), (*values, balance_change) in moved.items():
            if operation in SPENDING and model:
                by_model.setdefault((period_at, model), _Spend()).take(operation, values)
            allowance, amount = values[3], values[4]
            match operation:
                case "add_credits" | "open_account":
                    added[credits_type] = added.get(credits_type, 0) + amount
                case "adjust_credits":
                    adjusted += amount
                case "expire_grant":
                    expired -= balance_change
                case "refund":
                    lost += amount - balance_change - allowance
        charged = {group: spend for group, spend in by_account.items() if spend.charges}
        return AggregateStats(
            accounts=len(charged),
            average_day=_share(total.charged, busy_days),
            top_account=_most_charged(charged),
            top_model=_most_charged({group: spend for group, spend in by_model.items() if spend.charges}),
            added={name: from_micro(value) for name, value in sorted(added.items())},
            adjusted=from_micro(adjusted),
            expired=from_micro(expired),
            lost=from_micro(lost),
            **total.parts(),
        )

    def list_user_transactions(
        self,
        account: str,
        *,
        operations: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> TransactionPage:
        """Return an account's transactions, newest first. Pages neither repeat nor skip one while entries arrive.

        Args:
            operations: the operations to list: `deduct`, `settle`, `add_credits`, ...; None for all.
            types: the types of credits that came in or expired to list; None for all.
            limit: the most transactions to return, up to 1000.
            cursor: the cursor of the page before, with the same filters.
        """
        with self._database.read() as connection:
            return read_page(
                connection,
                self._namespace,
                account,
                operations=operations,
                types=types,
                times=times(start, end),
                limit=check_limit(limit),
                cursor=cursor,
            )

    def usage(
        self,
        measure: str,
        by: UsageGroup = "model",
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        account: str | None = None,
        time_zone: str = "UTC",
        declared: Collection[str] = (),
    ) -> list[Usage]:
        """Return the consumption of a measure: `input_tokens`, `output_tokens`, `tool_calls`, ..., or a document's own.

        Charged usage counts; estimates and the charges of expired leases do not.

        Args:
            by: account, model, member, day or hour.
            account: an account, or None for all.
            time_zone: the time zone of the days, an IANA name.
            declared: the pricing document's own measures. Measures that were ever used are known without it.

        Returns:
            Rows in the order of days or hours, else the largest first.
        """
        if by not in get_args(UsageGroup):
            raise ConfigError(f"usage can be grouped by {', '.join(get_args(UsageGroup))}, not {by!r:.40}")
        check_time_zone(time_zone)
        with self._database.read() as connection:
            question = self._question(() if by == "day" else (by,), times(start, end), account)
            zone: tzinfo = UTC
            if by == "day":
                question, zone = _by_days(connection, question, time_zone)
            found = _quantities(connection, question, measure)
            if not found:
                _check_measure(connection, self._namespace, measure, declared)

        def of(group: Group) -> Any:
            match by:
                case "day":
                    return _local_day(question.bounds[group[0]], time_zone, zone)
                case "hour":
                    return _at(group[1] * HOUR_MS)
            return group[1] or None

        rows = [Usage(measure=measure, of=of(group), quantity=value) for group, value in found.items() if value]
        if by in ("day", "hour"):
            return sorted(rows, key=lambda row: row.of)  # type: ignore[arg-type,return-value]
        return sorted(rows, key=lambda row: (-row.quantity, str(row.of or "")))

    def anomalies(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        account: str | None = None,
        history_days: int = 28,
        threshold: float = 6.0,
        at_least: Amount = 1,
    ) -> list[Anomaly]:
        """Return the hours in which an account was charged far more than usual, the most unusual first.

        The usual charge is the median of an account's hours, and the spread their median distance from it (MAD, scaled
        to a standard deviation): outliers move neither. The hours are all that begin in the `history_days` before
        `start` and until `end`, empty ones included, from the account's first charge on. If more than half of them are
        empty, so that both would be zero, the hours with charges count alone. A spread is at least a quarter of the
        usual charge, so that very even spending raises no false alarm.

        Args:
            start: the beginning; a day before `end` by default.
            end: the end; by default that of the last hour with any entry.
            account: an account, or None for all.
            history_days: the length of the history, up to 366 days.
            threshold: the number of spreads above the usual charge that makes an hour unusual.
            at_least: credits; hours with smaller charges are left out.
        """
        sensitivity = Sensitivity.checked(history_days, threshold, at_least)
        with self._database.read() as connection:
            return find_anomalies(connection, self._namespace, times(start, end), account, sensitivity)

    def _question(self, by: tuple[str, ...], period: Times, account: str | None) -> Question:
        return Question(self._namespace, period, by, account, SPENDING)

    def _spent(self, by: tuple[str, ...], period: Times, account: str | None = None) -> "dict[Group, _Spend]":
        with self._database.read() as connection:
            return _spent(connection, self._question(by, period, account))


def times(start: datetime | None, end: datetime | None) -> Times:
    """Return a period in milliseconds. Raises ConfigError."""
    period = (
        BEGINNING_MS if start is None else max(BEGINNING_MS, milliseconds_from(_utc(start))),
        END_MS if end is None else min(END_MS, milliseconds_from(_utc(end))),
    )
    if start is not None and end is not None and _utc(start) > _utc(end):
        raise ConfigError(f"a period must end after its start, not from {start.isoformat()} to {end.isoformat()}")
    return period[0], max(period)


def check_limit(limit: int) -> int:
    """Return `limit`. Raises ConfigError."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1000:
        raise ConfigError(f"a limit must be a number from 1 to 1000, not {limit!r:.40}")
    return limit


def _utc(moment: datetime) -> datetime:
    if not isinstance(moment, datetime):
        raise ConfigError(f"a time must be a datetime, not {type(moment).__name__}")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _at(milliseconds: int) -> datetime:
    return EPOCH + milliseconds * MILLISECOND


class _Spend:
    """Spending in micro-credits."""

    __slots__ = ("allowance", "charged", "charges", "refunded", "shortfall")

    def __init__(self) -> None:
        self.charges = self.charged = self.allowance = self.refunded = self.shortfall = 0

    def take(self, operation: str, values: Sequence[int]) -> None:
        """Add an operation's sums of `_NAMES`."""
        _, charges, charged, allowance, amount, shortfall = values
        if operation == "refund":
            self.refunded += amount
        else:
            self.charges += charges
            self.charged += charged
            self.allowance += allowance
            self.shortfall += shortfall

    def add(self, other: "_Spend") -> None:
        """Add other spending."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def parts(self) -> dict[str, Any]:
        """Return the fields of `Spend`."""
        return {
            "charges": self.charges,
            "charged": from_micro(self.charged),
            "allowance": from_micro(self.allowance),
            "refunded": from_micro(self.refunded),
            "net": from_micro(self.charged - self.refunded),
            "shortfall": from_micro(self.shortfall),
        }


def _spent(connection: Connection, question: Question) -> dict[Group, _Spend]:
    inner = msgspec.structs.replace(question, by=(*question.by, "operation"))
    groups: dict[Group, _Spend] = {}
    for (*group, operation), values in sums_of(connection, inner, _NAMES).items():
        if values[0]:  # without entries it is the usage of one of several models in a charge
            groups.setdefault(tuple(group), _Spend()).take(operation, values)
    return groups


def _ranked(spent: Mapping[Group, _Spend]) -> list[tuple[Group, _Spend]]:
    return sorted(spent.items(), key=lambda item: (-item[1].charged, item[0]))


def _most_charged(spent: Mapping[Group, _Spend]) -> str | None:
    """Return the account or model that was charged most; the first of several."""
    return min(spent, key=lambda group: (-spent[group].charged, group))[1] if spent else None


def _share(total: int, parts: int) -> Decimal:
    """Return a part of the total in credits; half a micro-credit is rounded up."""
    return from_micro((2 * total + parts) // (2 * parts)) if parts else from_micro(0)


def _by_days(connection: Connection, question: Question, time_zone: str) -> tuple[Question, tzinfo]:
    """Return the question by days in which anything moved, with their bounds inside the question's, and the zone."""
    check_time_zone(time_zone)
    zone: tzinfo = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
    first, last = question.bounds[0], question.bounds[-1]
    bounds = {first, last}
    end = BEGINNING_MS
    for hour in hours_with_entries(connection, question):
        at, until = max(hour * HOUR_MS, first), min((hour + 1) * HOUR_MS, last)
        while end < until:
            start, end = window_bounds("day", time_zone, max(at, end))
            bounds |= {max(start, first), min(end, last)}
    return msgspec.structs.replace(question, bounds=tuple(sorted(bounds))), zone


def _local_day(start_ms: int, time_zone: str, zone: tzinfo) -> date:
    start, end = window_bounds("day", time_zone, start_ms)
    # The clock may skip midnight or pass it twice: the middle of the day is unambiguous.
    return _at((start + end) // 2).astimezone(zone).date()


def _quantities(connection: Connection, question: Question, measure: str) -> dict[Group, int | Decimal]:
    if measure in USAGE_SUMS:
        return {group: value[0] for group, value in sums_of(connection, question, (measure,)).items()}
    if not isinstance(measure, str) or not measure:
        raise ConfigError(f"a measure must be a name such as 'input_tokens', not {measure!r:.40}")
    own = measured(connection, question, name_of(measure) or "")
    return {group: from_micro(value) for group, value in own.items()}


def _check_measure(connection: Connection, namespace: str, measure: str, declared: Collection[str]) -> None:
    """Raise an error for a measure that is neither a field of a usage, nor declared, nor counted in this ledger.

    Args:
        connection: a connection to the ledger.
        namespace: the namespace.
        measure: the name.
        declared: measures of the pricing document, which may never have been used.

    Raises:
        ConfigError: lists the known measures.
    """
    if measure in USAGE_SUMS or measure in COUNTED_BY_NAME or measure in declared:
        return
    its = measures.c
    if connection.scalar(select(its.measure).where(its.namespace == namespace, its.measure == measure).limit(1)):
        return
    own = sorted({*declared, *_counted_measures(connection, namespace)} - {*COUNTED_BY_NAME})
    names = f"; and of its own: {', '.join(map(repr, own))}" if own else ""
    built_in = (*USAGE_SUMS, *COUNTED_BY_NAME)
    raise ConfigError(
        f"there is no measure {measure!r:.80}; there are {', '.join(built_in)}{names}"
        f"{did_you_mean(measure, (*own, *built_in))}"
    )


def _check_team(connection: Connection, namespace: str, account: str) -> None:
    """Raise TeamNotFoundError if the account is not a team in the ledger."""
    its = accounts.c
    fields = connection.scalar(select(its.fields).where(its.namespace == namespace, its.account == account))
    if fields is None:
        raise TeamNotFoundError(account, exists=False)
    if _TEAM_FIELD not in msgspec.json.decode(fields, type=dict[str, str]):
        raise TeamNotFoundError(account, exists=True)


def _counted_measures(connection: Connection, namespace: str) -> list[str]:
    # One step in the index for each name: one measure may have millions of rows.
    found: list[str] = []
    its = measures.c
    while len(found) < _MEASURES_LISTED:
        after = [its.measure > found[-1]] if found else []
        name = connection.scalar(select(func.min(its.measure)).where(its.namespace == namespace, *after))
        if name is None:
            break
        found.append(name)
    return found
