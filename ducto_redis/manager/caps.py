"""Spend caps: set, inspect, raise, clear and remove them."""

import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Literal, TypeAlias

from ducto_redis.engine.ids import check_id
from ducto_redis.engine.operation import PLAIN, CapRule, Conditions
from ducto_redis.errors import CapNotFoundError, ConfigError, StoreError
from ducto_redis.manager.arguments import GRANT_KEY_KEPT_MS, expiry_to_ms, journal_cause, operation_key
from ducto_redis.manager.base import ManagerBase
from ducto_redis.manager.pricing_book import Pricing
from ducto_redis.manager.team_lookup import member_of
from ducto_redis.money import Amount, to_micro
from ducto_redis.pricing.resolution import DEFAULT, resolve
from ducto_redis.pricing.spend_caps import wrong_cap_model
from ducto_redis.results import AccountChange, AccountDescription, CapStatus
from ducto_redis.suggestions import did_you_mean
from ducto_redis.windows import TOTAL, WINDOWS, check_time_zone

Window: TypeAlias = Literal["minute", "hour", "day", "week", "month", "total"]
CapAction: TypeAlias = Literal["deny", "warn", "notify"]

_log = logging.getLogger("ducto_redis.manager")

ACTIONS = ("deny", "warn", "notify")
ACCOUNT_SCOPE = "account"
MEMBER_SCOPE = "member/"
MODEL_SCOPE = "model/"
_OWN = "own"
_PLANS = "plan"
_TIMES = 8
_NUMBER = re.compile(r"-[0-9]+$")


class Caps(ManagerBase):
    """The part of a manager that limits spend in a window."""

    async def set_spend_cap(
        self,
        account: str,
        limit: Amount,
        window: Window,
        *,
        action: CapAction = "deny",
        rolling: bool = False,
        member: str | None = None,
        model: str | None = None,
        time_zone: str | None = None,
        idempotency_key: str | None = None,
    ) -> CapStatus:
        """Limit the spend of an account, of a member of it, or on one model, in a window.

        Holds count until they are settled, and usage that an allowance pays for counts too. A cap of the same scope,
        window, kind (calendar or rolling), time zone and action gets the new limit, and keeps its count; so one window
        may have a limit that warns below one that denies.

        Args:
            account: a user or a team.
            limit: credits, zero or more.
            window: minute, hour, day, week, month or total.
            action: `deny` refuses a hold or charge that would pass the limit; `warn` and `notify` admit it: the first
                one that passes tells it in its `warnings` and in an event.
            rolling: the window ends now instead of following the calendar; a rolling month has 30 days.
            member: counts the spend of this member of a team.
            model: counts the cost of this model, in all its versions. A name that only `_default` prices is taken as it
                is written, for a mistyped name looks like that of a new model; one that is close to another is logged
                as a warning.
            time_zone: the time zone of the calendar, an IANA name; by default that of the existing cap, the account's
                own or its plan's, else UTC.
            idempotency_key: the same key with the same request takes effect once; remembered for 35 days.

        Returns:
            The cap, in its new state.

        Raises:
            ConfigError: for an unknown window, action or time zone, a total that rolls, member and model at once, or a
                model without a price in the active pricing document, so that the cap would limit nothing.
            CapNotFoundError: if another process removed it again before this call could show it.
            TeamNotFoundError, MemberNotFoundError, InvalidAmountError (a limit below zero; more than 16 caps of a
            scope), InvalidIdError, IdempotencyConflictError, JournalFullError, RecoveryNeededError,
            StoreUnavailableError
        """
        await self._ready()
        micro = to_micro(limit, zero=True)
        _check_window(window, rolling)
        if action not in ACTIONS:
            raise ConfigError(
                f"an action is {_listed(ACTIONS)}, not {action!r:.60}{did_you_mean(str(action), ACTIONS)}"
            )
        if time_zone is not None:
            check_time_zone(time_zone)
        scope = await self._scope(member, model)
        if model is not None:
            await self._check_priced(model)
        key = operation_key(
            idempotency_key,
            GRANT_KEY_KEPT_MS,
            "set_spend_cap",
            micro,
            window,
            action,
            rolling,
            member,
            model,
            time_zone,
        )
        zone = time_zone or await self._zone(account, scope, window, rolling)
        rule = CapRule(scope, window, micro, action, rolling, zone)
        await self._conditioned(
            account,
            lambda conditions: self.store.set_cap(account, rule, key, conditions=conditions, cause=journal_cause()),
        )
        description = await self._describe(account)
        for cap in caps_of(description):
            if (cap.time_zone, cap.action) == (zone, action) and _is_own(cap, scope, window, rolling):
                return cap
        raise CapNotFoundError(account, f"{scope} per {window}", _named(caps_of(description)))

    async def remove_spend_cap(
        self,
        account: str,
        cap: str | CapStatus | None = None,
        *,
        window: Window | None = None,
        action: CapAction | None = None,
        rolling: bool = False,
        member: str | None = None,
        model: str | None = None,
        time_zone: str | None = None,
        idempotency_key: str | None = None,
    ) -> AccountChange:
        """Remove a spend cap that was set for the account.

        Args:
            account: a user or a team.
            cap: the cap, or its id; without it, the cap that was set with the other arguments.
            member, model: the owner of the cap, if several have the same id; the account itself by default.
            window, action, rolling, time_zone: as they were given to `set_spend_cap`; without action and time zone, the
                only such cap.
            idempotency_key: the same key with the same request takes effect once; remembered for 35 days.

        Raises:
            CapNotFoundError: names the caps that exist.
            ConfigError: if it is a cap of the account's plan, if neither cap nor window is given, or if several caps
                match.
            TeamNotFoundError, MemberNotFoundError, InvalidIdError, IdempotencyConflictError, JournalFullError,
            RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        key = operation_key(
            idempotency_key,
            GRANT_KEY_KEPT_MS,
            "remove_spend_cap",
            _passed(cap),
            window,
            action,
            rolling,
            member,
            model,
            time_zone,
        )
        try:
            found = await self._own_cap(account, cap, window, action, rolling, member, model, time_zone)
        except CapNotFoundError as missing:
            # It may have been removed by this very call, whose reply was lost: the engine knows by the key.
            try:
                return await self.store.remove_cap(account, ACCOUNT_SCOPE, missing.cap, key, cause=journal_cause())
            except CapNotFoundError:
                raise missing from None
        return await self.store.remove_cap(account, found.scope, found.cap_id, key, cause=journal_cause())

    async def check_spend_cap(
        self, account: str, *, member: str | None = None, model: str | None = None
    ) -> tuple[CapStatus, ...]:
        """Return the spend caps of an account, its own and its plan's, with the count of each.

        Args:
            account: a user or a team.
            member: leaves out the caps of other members.
            model: leaves out the caps of other models.

        Raises:
            TeamNotFoundError, MemberNotFoundError, InvalidIdError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        model = None if model is None else await self._cap_model(model)
        description = await self._describe(account)
        if member is not None:
            member_of(description, check_id(member, "a member"))
        return tuple(
            cap
            for cap in caps_of(description)
            if not (member is not None and cap.scope.startswith(MEMBER_SCOPE) and cap.scope != MEMBER_SCOPE + member)
            and not (model is not None and cap.scope.startswith(MODEL_SCOPE) and cap.scope != MODEL_SCOPE + model)
        )

    async def raise_spend_cap(
        self,
        account: str,
        cap: str | CapStatus,
        limit: Amount,
        until: datetime,
        *,
        member: str | None = None,
        model: str | None = None,
        idempotency_key: str | None = None,
    ) -> CapStatus:
        """Give a spend cap, the account's or the plan's, another limit until a time; then its own limit returns.

        Args:
            account: a user or a team.
            cap: the cap, or its id.
            limit: credits, zero or more.
            until: the end of the raise, in the future; one without a time zone is in UTC.
            member, model: the owner of the cap, if several have the same id; the account itself by default.
            idempotency_key: the same key with the same request takes effect once; remembered for 35 days.

        Returns:
            The cap, in its new state.

        Raises:
            CapNotFoundError: names the caps that exist.
            ConfigError: if the time is past, or the id stands for several caps.
            TeamNotFoundError, MemberNotFoundError, InvalidAmountError, InvalidIdError, IdempotencyConflictError,
            JournalFullError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        micro = to_micro(limit, zero=True)
        until_ms = _milliseconds(until)
        key = operation_key(
            idempotency_key, GRANT_KEY_KEPT_MS, "raise_spend_cap", _passed(cap), micro, until_ms, member, model
        )
        return await self._changed(
            account,
            await self._cap(account, cap, member, model),
            lambda found, conditions: self.store.raise_cap(
                account, found.scope, found.cap_id, micro, until_ms, key, conditions=conditions, cause=journal_cause()
            ),
        )

    async def clear_spend_cap(
        self,
        account: str,
        cap: str | CapStatus,
        *,
        member: str | None = None,
        model: str | None = None,
        idempotency_key: str | None = None,
    ) -> CapStatus:
        """Forget the spend in a cap's window so far. Holds of open leases still count.

        Args:
            account: a user or a team.
            cap: the cap, or its id.
            member, model: the owner of the cap, if several have the same id; the account itself by default.
            idempotency_key: the same key with the same request takes effect once; remembered for 35 days.

        Returns:
            The cap, in its new state.

        Raises:
            CapNotFoundError: names the caps that exist.
            TeamNotFoundError, MemberNotFoundError, InvalidIdError, IdempotencyConflictError, JournalFullError,
            RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "clear_spend_cap", _passed(cap), member, model)
        return await self._changed(
            account,
            await self._cap(account, cap, member, model),
            lambda found, conditions: self.store.clear_cap(
                account, found.scope, found.cap_id, key, conditions=conditions, cause=journal_cause()
            ),
        )

    async def _changed(
        self, account: str, cap: CapStatus, change: Callable[[CapStatus, Conditions], Awaitable[AccountChange]]
    ) -> CapStatus:
        for _ in range(_TIMES):
            try:
                if cap.source == _PLANS:
                    await self._conditioned(account, partial(change, cap))
                else:
                    await change(cap, PLAIN)
            except CapNotFoundError:  # a plan's cap without a number gets a new one with every change
                cap = await self._cap(account, cap)
            else:
                return await self._cap(account, cap)
        raise StoreError(f"account {account!r} changes too often to change its spend cap {cap.cap_id!r}; try again")

    async def _own_cap(
        self,
        account: str,
        cap: str | CapStatus | None,
        window: str | None,
        action: str | None,
        rolling: bool,
        member: str | None,
        model: str | None,
        time_zone: str | None,
    ) -> CapStatus:
        if cap is not None:
            return await self._cap(account, cap, member, model)
        if window is None:
            raise ConfigError("give the id of the spend cap, or the window that it was set with")
        _check_window(window, rolling)
        scope = await self._scope(member, model)
        description = await self._describe(account)
        if member is not None:
            member_of(description, member)
        named = [
            each
            for each in caps_of(description)
            if _is_own(each, scope, window, rolling)
            and action in (None, each.action)
            and time_zone in (None, each.time_zone)
        ]
        return self._find(description, f"{scope} per {window}", named)

    async def _cap(
        self, account: str, cap: str | CapStatus, member: str | None = None, model: str | None = None
    ) -> CapStatus:
        description = await self._describe(account)
        if isinstance(cap, CapStatus):
            ours = [each for each in caps_of(description) if each.scope == cap.scope]
            return self._find(description, cap.cap_id, _with_id(ours, cap.cap_id))
        check_id(cap, "a spend cap")
        if member is not None:
            member_of(description, check_id(member, "a member"))
        named = _with_id(caps_of(description), cap)
        if member is not None or model is not None:
            scope = await self._scope(member, model)
            named = [each for each in named if each.scope == scope]
        elif len(named) > 1:  # an id is unique in its scope, and the account's own comes first
            named = [each for each in named if each.scope == ACCOUNT_SCOPE] or named
        return self._find(description, cap, named)

    @staticmethod
    def _find(description: AccountDescription, name: str, found: list[CapStatus]) -> CapStatus:
        if not found:
            raise CapNotFoundError(description.account, name, _named(caps_of(description)))
        if len(found) > 1:
            raise ConfigError(
                f"account {description.account!r} has several caps {name!r}: {', '.join(map(_described, found))}; pass"
                " one of them, as `check_spend_cap` returns it"
            )
        return found[0]

    async def _scope(self, member: str | None, model: str | None) -> str:
        if member is not None and model is not None:
            raise ConfigError("a spend cap counts the spend of a member or on a model, not both at once")
        if member is not None:
            return MEMBER_SCOPE + check_id(member, "a member")
        if model is not None:
            return MODEL_SCOPE + await self._cap_model(model)
        return ACCOUNT_SCOPE

    async def _cap_model(self, model: str) -> str:
        check_id(model, "a model")
        pricing = await self.pricing.active_or_none()
        return model if pricing is None else pricing.engine.cap_model(model)

    async def _check_priced(self, model: str) -> None:
        pricing = await self.pricing.active_or_none()
        if pricing is None:
            return
        if wrong_cap_model(model, _entries(pricing)):
            await self.pricing.refresh()  # it may have been published a moment ago
            pricing = await self.pricing.active()
            if wrong := wrong_cap_model(model, _entries(pricing)):
                raise ConfigError(wrong)
        entries = _entries(pricing)
        if resolve(model, entries) == DEFAULT and (hint := did_you_mean(model, entries)):
            _log.warning("a spend cap counts model %r, which only %s prices%s", model, DEFAULT, hint)

    async def _zone(self, account: str, scope: str, window: str, rolling: bool) -> str:
        if rolling or window == TOTAL:
            return "UTC"  # such windows follow no calendar
        description = await self._describe(account)
        pricing = await self.pricing.active_or_none()
        plan = None if pricing is None else pricing.plan(description.plan)
        zone = description.time_zone or ("UTC" if plan is None else plan.time_zone)
        there = {cap.time_zone for cap in caps_of(description) if _is_own(cap, scope, window, rolling)}
        return there.pop() if len(there) == 1 else zone


def caps_of(description: AccountDescription) -> tuple[CapStatus, ...]:
    """Return all spend caps of an account: of the account, of models and of members."""
    team = description.team
    members = () if team is None else (*team.members, *team.removed)
    caps = (*description.caps, *(cap for member in members for cap in member.caps))
    return tuple({(cap.scope, cap.cap_id): cap for cap in caps}.values())


def _entries(pricing: Pricing) -> dict[str, str]:
    document = pricing.engine.document
    return {**document.models, **document.plans_models}


def _with_id(caps: Iterable[CapStatus], cap_id: str) -> list[CapStatus]:
    """Return the caps of an id.

    The number at the end of a plan's cap is known only when the account first spends against it. Until then every
    description of the account shows the next number, so that an earlier id, or one without a number, means that cap.
    """
    there = list(caps)
    found = [cap for cap in there if cap.cap_id == cap_id]
    plain = _NUMBER.sub("", cap_id)
    return found or [cap for cap in there if cap.source == _PLANS and _NUMBER.sub("", cap.cap_id) == plain]


def _is_own(cap: CapStatus, scope: str, window: str, rolling: bool) -> bool:
    return (cap.source, cap.scope, cap.window, cap.rolling) == (_OWN, scope, window, rolling)


def _check_window(window: str, rolling: bool) -> None:
    if window not in WINDOWS:
        raise ConfigError(f"a window is {_listed(WINDOWS)}, not {window!r:.60}{did_you_mean(str(window), WINDOWS)}")
    if rolling and window == TOTAL:
        raise ConfigError("the window 'total' never ends, so it cannot roll")


def _milliseconds(until: datetime) -> int:
    if not isinstance(until, datetime):
        raise ConfigError(f"until is a datetime, not {until!r:.40}")
    return expiry_to_ms(until)


def _passed(cap: str | CapStatus | None) -> object:
    return (cap.scope, cap.cap_id) if isinstance(cap, CapStatus) else cap


def _named(caps: Iterable[CapStatus]) -> list[str]:
    return [_described(cap) for cap in caps]


def _described(cap: CapStatus) -> str:
    rolling = "rolling " if cap.rolling else ""
    return f"{cap.cap_id} ({cap.action} {cap.scope} per {rolling}{cap.window})"


def _listed(names: Iterable[str]) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}"
