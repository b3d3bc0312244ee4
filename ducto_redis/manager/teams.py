"""Teams: accounts whose credits several members spend."""

from typing import Literal, TypeAlias, Unpack

from ducto_redis.engine.ids import check_account, check_id, new_id
from ducto_redis.engine.operation import OperationKey
from ducto_redis.errors import (
    CapReachedError,
    ConfigError,
    FeatureNotEntitledError,
    IdempotencyConflictError,
    InsufficientCreditsError,
)
from ducto_redis.manager.arguments import (
    CALL_KEPT_MS,
    GRANT_KEY_KEPT_MS,
    KEY_KEPT_MS,
    UsageOrAmount,
    check_member,
    fingerprint,
    journal_cause,
    key_of_call,
    key_of_step,
    operation_key,
    split,
    steps_of,
)
from ducto_redis.manager.balances import Balances
from ducto_redis.manager.caps import Caps
from ducto_redis.manager.leases import Leases
from ducto_redis.manager.options import ChargeOptions, DeductOptions
from ducto_redis.manager.repricing import Attempt
from ducto_redis.manager.team_lookup import UNKNOWN, explained, member_of, no_member, team_of
from ducto_redis.money import Amount, to_micro
from ducto_redis.results import AccountChange, DeductResult, PersonalOrTeamCharge, Team, TeamMember
from ducto_redis.suggestions import did_you_mean

Role: TypeAlias = Literal["owner", "admin", "member"]

ROLES = ("owner", "admin", "member")
REMOVED = "removed"
INITIAL = "initial"
"""The type of the credits that a team begins with."""

_MEMBERS_WINDOW: Literal["month"] = "month"
_CANNOT_PAY = (InsufficientCreditsError, CapReachedError, FeatureNotEntitledError)


class Teams(Balances, Caps, Leases):
    """The part of a manager for accounts with members."""

    async def create_team(
        self,
        team: str,
        name: str | None = None,
        *,
        owner: str | None = None,
        initial_credits: Amount | None = None,
        idempotency_key: str | None = None,
    ) -> Team:
        """Make an account a team. Its credits become the team's.

        Args:
            team: the account's id.
            name: its name for people; the id by default.
            owner: its first member, with the role `owner`.
            initial_credits: credits that it begins with, added in a second step. If that fails, repeat the call with
                the same key.
            idempotency_key: the same key with the same request takes effect once; remembered for 35 days.

        Raises:
            ConfigError: if it is a team already.
            InvalidAmountError, InvalidIdError, IdempotencyConflictError, JournalFullError, RecoveryNeededError,
            StoreUnavailableError
        """
        await self._ready()
        check_account(team)
        name = team if name is None else check_id(name, "a team's name")
        credits = None if initial_credits is None else to_micro(initial_credits, zero=True)
        if owner is not None:
            check_id(owner, "a member")
        own_key = key_of_call(idempotency_key)
        key = operation_key(own_key, GRANT_KEY_KEPT_MS, "create_team", name, owner, credits)
        with steps_of(own_key):
            await self.store.create_team(team, name, owner or "", key, cause=journal_cause())
            if credits and initial_credits is not None:
                await self.add_credits(
                    team, initial_credits, type=INITIAL, idempotency_key=key_of_step(own_key, "credits")
                )
            return await self.get_team(team)

    async def get_team(self, team: str) -> Team:
        """Return a team: its pool, its members with their spend and caps, and the removed members.

        Raises:
            TeamNotFoundError: if the account is no team.
            InvalidIdError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        return team_of(await self._describe(team))

    async def add_team_member(
        self,
        team: str,
        user: str,
        role: Role = "member",
        spend_cap: Amount | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> TeamMember:
        """Add a member to a team. A present member gets the role; a removed one becomes a member again.

        Args:
            team: the team.
            user: the new member.
            role: owner, admin or member. Their rights are up to the application.
            spend_cap: credits that the member may spend in a calendar month, set in a second step. Without it, a cap
                that the member has stays.
            idempotency_key: the same key with the same request takes effect once; remembered for 35 days.

        Raises:
            TeamNotFoundError
            ConfigError: for an unknown role, or if the team would lose its last owner.
            InvalidAmountError, InvalidIdError, IdempotencyConflictError, JournalFullError, RecoveryNeededError,
            StoreUnavailableError
        """
        await self._ready()
        _check_role(role)
        cap = None if spend_cap is None else to_micro(spend_cap, zero=True)
        own_key = key_of_call(idempotency_key)
        key = operation_key(own_key, GRANT_KEY_KEPT_MS, "add_team_member", user, role, cap)
        with steps_of(own_key):
            await self._set_member(team, user, role, key)
            if spend_cap is not None:
                await self.set_spend_cap(
                    team, spend_cap, _MEMBERS_WINDOW, member=user, idempotency_key=key_of_step(own_key, "cap")
                )
            return await self._member(team, user)

    async def set_team_role(
        self, team: str, user: str, role: Role, *, idempotency_key: str | None = None
    ) -> TeamMember:
        """Give a member another role.

        Raises:
            TeamNotFoundError, MemberNotFoundError
            ConfigError: for an unknown role, or if the team would lose its last owner.
            InvalidIdError, IdempotencyConflictError, JournalFullError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        _check_role(role)
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "set_team_role", user, role)
        description = await self._describe(team)
        if member_of(description, check_id(user, "a member")).role == REMOVED:
            raise no_member(team_of(description), user)
        await self._set_member(team, user, role, key)
        return await self._member(team, user)

    async def remove_team_member(self, team: str, user: str, *, idempotency_key: str | None = None) -> AccountChange:
        """Remove a member from a team. Their open leases can settle; they can start nothing new.

        Raises:
            TeamNotFoundError, MemberNotFoundError
            ConfigError: if the team would lose its last owner.
            InvalidIdError, IdempotencyConflictError, JournalFullError, RecoveryNeededError, StoreUnavailableError
        """
        await self._ready()
        key = operation_key(idempotency_key, GRANT_KEY_KEPT_MS, "remove_team_member", user)
        return await self._set_member(team, user, REMOVED, key)

    async def deduct_team(
        self,
        team: str,
        user: str,
        usage_or_amount: UsageOrAmount,
        **options: Unpack[DeductOptions],
    ) -> DeductResult:
        """Charge a team for a member's usage: `deduct` with the member named.

        The team's balance, plan and caps and the member's caps are checked in one step; the member's own account is
        not.

        Raises:
            TeamNotFoundError: if the account is no team.
            MemberNotFoundError: if the user is not, or no longer, a member of it.
            the errors of `deduct`
        """
        return await self.deduct(team, usage_or_amount, member=user, **options)

    async def deduct_personal_then_team(
        self,
        user: str,
        team: str,
        usage_or_amount: UsageOrAmount,
        **options: Unpack[ChargeOptions],
    ) -> PersonalOrTeamCharge:
        """Charge a user's own account, or, if that cannot pay, their team. Exactly one of the two pays everything.

        The own account cannot pay if it lacks the credits, one of its caps is reached, or its plan lacks the required
        feature. Any other refusal (a frozen account, a model without a price) is raised, and nobody pays.

        The two accounts are not checked in one step. It is one charge because the decision is recorded on the user's
        own account, under the key: either the charge itself, or, before the team is charged, that the team pays. So a
        call that is repeated with the same key, even after it died half-way, charges the account that was decided on
        and no other, for the 24 hours that the key is remembered. If neither can pay, nothing is decided; but if the
        team spends its credits between the check and the charge, the key stays the team's: use a new key to try the
        own account again.

        Args:
            user: the user, whose own account is tried first; also the member of the team.
            team: the team that pays otherwise.
            usage_or_amount: the usage consumed, or credits; each account pays by its own plan.
            options: as for `deduct`. An idempotency key is remembered for 24 hours.

        Raises:
            TeamNotFoundError, MemberNotFoundError, and the errors of `deduct` for the team if neither can pay.
        """
        if user == team:
            raise ConfigError(
                f"user and team must be two accounts, not both {user!r}; charge a team with `deduct_team`"
            )
        own_key = options["idempotency_key"] = key_of_call(options.get("idempotency_key"))

        async def personal() -> PersonalOrTeamCharge:
            charge = await self.deduct(user, usage_or_amount, **options)
            return PersonalOrTeamCharge(paid_by="personal", account=user, charge=charge)

        with steps_of(own_key):
            try:
                return await personal()
            except IdempotencyConflictError:
                pass  # another request has the key, or the team was decided on: the next steps tell
            except _CANNOT_PAY:
                usages, amount = split(usage_or_amount)
                # A dry run, so that the key is not given to a team that cannot pay.
                attempt = Attempt(
                    team,
                    usages,
                    amount,
                    operation_type=options.get("operation_type", "default"),
                    billing_mode=options.get("billing_mode"),
                    member=check_member(user),
                    required_feature=options.get("required_feature"),
                )
                await self._hold(attempt, new_id(), CALL_KEPT_MS, dry_run=True)
            try:
                await self._decide_for_team(user, team, own_key)
            except IdempotencyConflictError:
                # The same call, made twice, charged meanwhile; or another request has the key, and this raises.
                return await personal()
            charge = await self.deduct_team(team, user, usage_or_amount, **options)
            return PersonalOrTeamCharge(paid_by="team", account=team, charge=charge)

    async def _decide_for_team(self, user: str, team: str, own_key: str) -> None:
        # An adjustment by zero is admitted in any state of the account, and takes the place of the charge under the
        # key.
        asked = operation_key(own_key, KEY_KEPT_MS)
        key = OperationKey(asked.text, asked.kept_ms, fingerprint("deduct_personal_then_team", team))
        cause = journal_cause(actor="deduct_personal_then_team", reason=f"team {team} pays")
        await self._conditioned(
            user,
            lambda conditions: self.store.adjust_credits(user, 0, key, force=True, conditions=conditions, cause=cause),
        )

    async def _set_member(self, team: str, user: str, role: str, key: OperationKey) -> AccountChange:
        try:
            return await self.store.set_member(team, check_id(user, "a member"), role, key, cause=journal_cause())
        except UNKNOWN as refused:
            raise await explained(refused, self._describe) from None

    async def _member(self, team: str, user: str) -> TeamMember:
        return member_of(await self._describe(team), user)  # the member may have been removed since


def _check_role(role: str) -> None:
    if role not in ROLES:
        *others, last = map(repr, ROLES)
        raise ConfigError(f"a role is {', '.join(others)} or {last}, not {role!r:.60}{did_you_mean(str(role), ROLES)}")
