"""What was spent, by whom and for what: questions that the ledger answers."""

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
    """What was spent.

    Answers come from the SQL ledger, which is a little behind: see `ducto ledger` and `wait_for_ledger`. On `memory://`
    and `embedded://`, whose worker runs in this process, they wait until it holds all that was journalled before.

    Times are half-open, [start, end): a charge at `end` is not in. A naive datetime is in UTC; None is open. Spend is
    what was charged, whoever paid for it; any grouping adds up to the same total.
    """

    async def spend_by_user(self, start: datetime | None = None, end: datetime | None = None) -> list[UserSpend]:
        """What each account spent, the one that was charged most first.

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
        """The accounts that were charged most.

        Args:
            limit: how many at the most, up to 1000.
            start, end: the time, [start, end).

        Raises:
            those of spend_by_user
        """
        return await self._ask(lambda analytics: analytics.top_users(limit, start, end))

    async def spend_by_model(
        self, start: datetime | None = None, end: datetime | None = None, *, account: str | None = None
    ) -> list[ModelSpend]:
        """What was spent on each model, most first; None is for charges of no model, or of several at once.

        Args:
            start, end: the time, [start, end).
            account: the only one.

        Raises:
            those of spend_by_user, InvalidIdError
        """
        account = _checked(account)
        return await self._ask(lambda analytics: analytics.spend_by_model(start, end, account=account))

    async def spend_by_member(
        self, team: str, start: datetime | None = None, end: datetime | None = None
    ) -> list[MemberSpend]:
        """What each member spent of a team, most first; None is for charges in nobody's name.

        Args:
            team: the team's account.
            start, end: the time, [start, end).

        Raises:
            TeamNotFoundError: if the account is no team.
            those of spend_by_user, InvalidIdError
        """
        team = check_account(team)
        spent = await self._ask(lambda analytics: analytics.spend_by_member(team, start, end))
        if not any(each.member for each in spent):
            with suppress(StoreError):  # the engine knows; where it is away, what the ledger says is an answer
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
        """What was spent on each day, in order. Days on which nothing moved are left out.

        Args:
            start, end: the time, [start, end). A day that it cuts counts with the part that is in it.
            time_zone: where days begin, an IANA name.
            account: the only one.

        Raises:
            those of spend_by_user, InvalidIdError
        """
        account = _checked(account)
        return await self._ask(
            lambda analytics: analytics.daily_spend(start, end, time_zone=time_zone, account=account)
        )

    async def aggregate_stats(
        self, start: datetime | None = None, end: datetime | None = None, *, account: str | None = None
    ) -> AggregateStats:
        """All that moved, and what stands out.

        Args:
            start, end: the time, [start, end).
            account: the only one.

        Raises:
            those of spend_by_user, InvalidIdError
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
        """An account's transactions, newest first. Pages neither repeat nor skip one, also while entries arrive.

        Args:
            account: whose.
            operations: only these: `deduct`, `settle`, `add_credits`, `refund`, ...
            types: only credits of these types that came in or expired: `purchase`, ...
            start, end: the time, [start, end).
            limit: how many at the most, up to 1000.
            cursor: of the page before, to go on from it; give the same filters with it.

        Raises:
            those of spend_by_user, InvalidIdError
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
        """What was consumed of a measure, by what was charged: estimates do not count.

        Args:
            measure: `input_tokens`, `output_tokens`, `tool_calls` and the other fields of `UsageMetrics`, or the name
                of one of the document's own measures.
            by: account, model, member, day or hour.
            start, end: the time, [start, end).
            account: the only one.
            time_zone: where days begin, an IANA name.

        Returns:
            days and hours in order; else what has most first. What has nothing is left out.

        Raises:
            ConfigError: besides, if there is no such measure; it names those that there are.
            those of spend_by_user, InvalidIdError
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
        """Hours in which an account was charged far more than is usual for it, the most unusual first.

        What is usual is the median of the account's own hours, and their spread the median distance from it; see
        docs/analytics.md.

        Args:
            start: hours from there; a day before `end` by default.
            end: until there; the end of the last hour with any entry by default.
            account: the only one.
            history_days: how far back before `start` its own history goes, 1 to 366.
            threshold: how many spreads above what is usual an hour must be.
            at_least: credits; hours below are never told.

        Raises:
            those of spend_by_user, InvalidIdError, InvalidAmountError
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
            return ()  # the ledger can be asked all the same
        return () if pricing is None else pricing.engine.document.measures

    async def _ask(self, question: "Callable[[Analytics], T]") -> T:
        ledger = self.ledger
        if ledger is None:
            raise ConfigError("analytics come from the SQL ledger, and there is none: give the manager a ledger_url")
        if self.store.local:
            await self._ready()
            await self._in_thread(lambda: self._ledger_access.wait(_WAIT_SECONDS))
        namespace = self.store.namespace.name
        return await self._in_thread(lambda: question(ledger.analytics(namespace)))


def _checked(account: str | None) -> str | None:
    return None if account is None else check_account(account)
