"""Plans of accounts: assign one, and read its allowance and features."""

from ducto_redis.engine.ids import check_id
from ducto_redis.errors import PlanNotFoundError
from ducto_redis.manager.arguments import GRANT_KEY_KEPT_MS, journal_cause, operation_key
from ducto_redis.manager.base import ManagerBase
from ducto_redis.manager.events import tells_plan
from ducto_redis.manager.limits import has_feature
from ducto_redis.pricing import Plan
from ducto_redis.results import AccountChange, AllowanceStatus, FeatureStatus, UserPlan
from ducto_redis.windows import check_time_zone


class Plans(ManagerBase):
    """The part of a manager that assigns plans. A team is an account like any other here."""

    @tells_plan
    async def set_user_plan(
        self, account: str, plan: str | None, *, time_zone: str | None = None, idempotency_key: str | None = None
    ) -> AccountChange:
        """Assign a plan of the active pricing document to an account.

        Another plan brings its own allowance and period; the used part of the period's allowance stays used, and the
        balance is not touched. The plan that the account has already changes nothing: the result is `replayed`.

        Args:
            account: a user or a team.
            plan: the plan's id, or None for no plan at all.
            time_zone: the time zone of the account's periods and windows, an IANA name. Without it the account keeps
                its own; an account that has none uses the plan's.
            idempotency_key: the same key with the same request takes effect once; remembered for 35 days.

        Raises:
            PlanNotFoundError: names the plans that exist.
            ConfigError: for an unknown time zone.
            PricingNotLoadedError, InvalidIdError, IdempotencyConflictError, JournalFullError, RecoveryNeededError,
            StoreUnavailableError
        """
        await self._ready()
        if time_zone is not None:
            check_time_zone(time_zone)
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "set_user_plan", plan, time_zone)
        if plan is not None:
            await self._check_plan_exists(check_id(plan, "a plan"))
        return await self._conditioned(
            account,
            lambda conditions: self.store.set_plan(
                account, plan or "", time_zone or "", key, conditions=conditions, cause=journal_cause()
            ),
            plan=plan or "",
        )

    async def unset_user_plan(self, account: str, *, idempotency_key: str | None = None) -> AccountChange:
        """Take an account's plan away, and with it the allowance; the balance stays. Raises as `set_user_plan`."""
        return await self.set_user_plan(account, None, idempotency_key=idempotency_key)

    async def get_user_plan(self, account: str) -> UserPlan | None:
        """Return the plan of an account, or None; for a new account, the one that it would begin with.

        A plan that is missing in the active document is named by its id, and has no features.

        Raises:
            InvalidIdError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        description = await self._describe(account)
        if not description.plan:
            return None
        plan = await self._plan_now(description.plan)
        return UserPlan(
            account=account,
            plan=description.plan,
            name=description.plan if plan is None else plan.name,
            assigned_at=description.plan_assigned_at or description.now,
            time_zone=description.time_zone or ("UTC" if plan is None else plan.time_zone),
            features={} if plan is None else plan.features,
        )

    async def check_allowance(self, account: str) -> AllowanceStatus:
        """Return the rest of an account's allowance, and the beginning and end of its period. All zero without a plan.

        Raises:
            InvalidIdError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        return (await self._describe(account)).allowance

    async def check_feature(self, account: str, feature: str) -> FeatureStatus:
        """Return the value of a feature in an account's plan. The result is true if the account has it.

        An account without a plan has no feature. Raises the errors of `get_user_plan`.
        """
        await self._ready()
        check_id(feature, "a feature")
        plan_id = (await self._describe(account)).plan
        plan = await self._plan_now(plan_id)
        return FeatureStatus(
            account=account,
            feature=feature,
            plan=plan_id or None,
            value=None if plan is None else plan.features.get(feature),
            present=has_feature(plan, feature),
        )

    async def _plan_now(self, plan_id: str) -> Plan | None:
        pricing = await self.pricing.active_or_none()
        return None if pricing is None else pricing.plan(plan_id)

    async def _check_plan_exists(self, plan_id: str) -> None:
        try:
            (await self.pricing.active()).engine.plan(plan_id)
        except PlanNotFoundError:
            await self.pricing.refresh()  # it may have been published a moment ago
            (await self.pricing.active()).engine.plan(plan_id)
