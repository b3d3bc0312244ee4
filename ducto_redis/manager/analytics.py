"""Spend and usage by account, model, member and time, as the ledger knows them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

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
from ducto_redis.engine.ids import check_account
from ducto_redis.errors import ConfigError, StoreError
from ducto_redis.manager.base import ManagerBase
from ducto_redis.manager.team_lookup import team_of
from ducto_redis.metrics import UsageMetrics
from ducto_redis.money import Amount

if TYPE_CHECKING:
    from ducto_redis.ledger.analytics import Analytics  # an extra

T = TypeVar("T")

_WAIT_SECONDS = 10.0


class Spending(ManagerBase):
    """The part of a manager that reports spend and usage.

    The numbers come from the SQL ledger, which is a little behind: see `ducto ledger` and `wait_for_ledger`. On
        `memory://`
    and `embedded://`, whose worker runs in this process, they include all that was journalled before.

    Times are half-open, [start, end): a charge at `end` is not included. A naive datetime is in UTC; None is open.
    Spend is the sum of charges, no matter who paid; any grouping adds up to the same total.
    """

    async def spend_by_user(self, start: datetime | None = None, end: datetime | None = None) -> list[UserSpend]:
        """Return the spend of each account, the largest first.

        Args:
            start, end: the time, [start, end).

        Raises:
            ConfigError: if there is no ledger, or the time ends before its start.
            LedgerError, LedgerUnavailableError
        """
        return await self._ask(lambda analytics: analytics.spend_by_user(start, end))

    async def top_users(
        self, limit: int = 10, start: datetime | None = None, end: datetime | None = None
    ) -> list[UserSpend]:
        """Return the accounts with the largest spend.

        Args:
            limit: the largest number of rows, up to 1000.
            start, end: the time, [start, end).

        Raises:
            the errors of spend_by_user
        """
        return await self._ask(lambda analytics: analytics.top_users(limit, start, end))

    async def spend_by_model(
        self, start: datetime | None = None, end: datetime | None = None, *, account: str | None = None
    ) -> list[ModelSpend]:
        """Return the spend on each model, the largest first; None is for charges of no model, or of several at once.

        Args:
            start, end: the time, [start, end).
            account: restricts it to one account.

        Raises:
            the errors of spend_by_user, InvalidIdError
        """
        account = _checked(account)
        return await self._ask(lambda analytics: analytics.spend_by_model(start, end, account=account))

    async def spend_by_member(
        self, team: str, start: datetime | None = None, end: datetime | None = None
    ) -> list[MemberSpend]:
        """Return the spend of each member of a team, the largest first; None is for charges that name no member.

        Args:
            team: the team's account.
            start, end: the time, [start, end).

        Raises:
            TeamNotFoundError: if the account is no team.
            the errors of spend_by_user, InvalidIdError
        """
        team = check_account(team)
        spent = await self._ask(lambda analytics: analytics.spend_by_member(team, start, end))
        if not any(each.member for each in spent):
            with suppress(StoreError):  # the engine knows; without it, the ledger alone is an answer
                await self._ready()
                team_of(await self._describe(team))
        return spent

    async def daily_spend(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        time_zone: str = "UTC",
        account: str | None = None,
    ) -> list[DaySpend]:
        """Return the spend of each day, in order. Days without any entry are left out.

        Args:
            start, end: the time, [start, end). A day at its edge counts with the part inside.
            time_zone: the time zone of the days, an IANA name.
            account: restricts it to one account.

        Raises:
            the errors of spend_by_user, InvalidIdError
        """
        account = _checked(account)
        return await self._ask(
            lambda analytics: analytics.daily_spend(start, end, time_zone=time_zone, account=account)
        )

    async def aggregate_stats(
        self, start: datetime | None = None, end: datetime | None = None, *, account: str | None = None
    ) -> AggregateStats:
        """Return all that moved, and what stands out.

        Args:
            start, end: the time, [start, end).
            account: restricts it to one account.

        Raises:
            the errors of spend_by_user, InvalidIdError
        """
        account = _checked(account)
        return await self._ask(lambda analytics: analytics.aggregate_stats(start, end, account=account))

    async def list_user_transactions(
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
        """Return an account's transactions, newest first. Pages neither repeat nor skip one, even while entries arrive.

        Args:
            account: the account.
            operations: only these: `deduct`, `settle`, `add_credits`, `refund`, ...
            types: only credits of these types that came in or expired: `purchase`, ...
            start, end: the time, [start, end).
            limit: the largest number of rows, up to 1000.
            cursor: the previous page's, to go on from it with the same filters.

        Raises:
            the errors of spend_by_user, InvalidIdError
        """
        account = check_account(account)
        return await self._ask(
            lambda analytics: analytics.list_user_transactions(
                account, operations=operations, types=types, start=start, end=end, limit=limit, cursor=cursor
            )
        )

    async def usage(
        self,
        measure: str,
        by: UsageGroup = "model",
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        account: str | None = None,
        time_zone: str = "UTC",
    ) -> list[Usage]:
        """Return the consumption of a measure, as it was charged: estimates do not count.

        Args:
            measure: `input_tokens`, `output_tokens`, `tool_calls` and the other fields of `UsageMetrics`, or the name
                of one of the document's own measures.
            by: account, model, member, day or hour.
            start, end: the time, [start, end).
            account: restricts it to one account.
            time_zone: the time zone of the days, an IANA name.

        Returns:
            Days and hours in order; other groups with the largest first. Groups without any are left out.

        Raises:
            ConfigError: also if there is no such measure; it names those that exist.
            the errors of spend_by_user, InvalidIdError
        """
        account = _checked(account)
        declared = () if measure in UsageMetrics.__struct_fields__ else await self._declared_measures()
        return await self._ask(
            lambda analytics: analytics.usage(
                measure, by, start, end, account=account, time_zone=time_zone, declared=declared
            )
        )

    async def anomalies(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        account: str | None = None,
        history_days: int = 28,
        threshold: float = 6.0,
        at_least: Amount = 1,
    ) -> list[Anomaly]:
        """Return hours in which an account was charged far more than usual, the most unusual first.

        The usual charge is the median of the account's own hours, the spread their median distance from it; see
        docs/analytics.md.

        Args:
            start: the first hour; a day before `end` by default.
            end: the end of the hours; the end of the last hour with any entry by default.
            account: restricts it to one account.
            history_days: days of its own history before `start`, 1 to 366.
            threshold: the number of spreads above the usual that makes an hour unusual.
            at_least: credits; hours below it are left out.

        Raises:
            the errors of spend_by_user, InvalidIdError, InvalidAmountError
        """
        account = _checked(account)
        return await self._ask(
            lambda analytics: analytics.anomalies(
                start, end, account=account, history_days=history_days, threshold=threshold, at_least=at_least
            )
        )

    async def _declared_measures(self) -> tuple[str, ...]:
        try:
            await self._ready()
            pricing = await self.pricing.active_or_none()
        except StoreError:
            return ()  # the ledger can still be asked
        return () if pricing is None else pricing.engine.document.measures

    async def _ask(self, question: "Callable[[Analytics], T]") -> T:
        ledger = self.ledger
        if ledger is None:
            raise ConfigError("analytics need the SQL ledger, and there is none: give the manager a ledger_url")
        if self.store.local:
            await self._ready()
            await self._in_thread(lambda: self._ledger_access.wait(_WAIT_SECONDS))
        namespace = self.store.namespace.name
        return await self._in_thread(lambda: question(ledger.analytics(namespace)))


def _checked(account: str | None) -> str | None:
    return None if account is None else check_account(account)
