"""Lookup of teams and members, and full errors for those that do not exist.

The engine only knows that a user is no member. The team and its members are looked up after a refusal, so that calls
that are admitted pay nothing for it.
"""

from collections.abc import Awaitable, Callable

from ducto_redis.errors import CreditError, MemberNotFoundError, StoreError, TeamNotFoundError
from ducto_redis.results import AccountDescription, Team, TeamMember

UNKNOWN = (TeamNotFoundError, MemberNotFoundError)
"""The refusals that `explained` completes."""


def team_of(description: AccountDescription) -> Team:
    """Return an account's team. Raises TeamNotFoundError, which says if the account exists."""
    if description.team is None:
        raise TeamNotFoundError(description.account, exists=description.balance.seq > 0)
    return description.team


def member_of(description: AccountDescription, user: str) -> TeamMember:
    """Return a member of an account's team, even one who was removed.

    Raises:
        TeamNotFoundError: if the account is no team.
        MemberNotFoundError: names the members that exist.
    """
    team = team_of(description)
    for member in (*team.members, *team.removed):
        if member.user == user:
            return member
    raise no_member(team, user)


def no_member(team: Team, user: str) -> MemberNotFoundError:
    """Return the error that a user is not, or no longer, a member of a team."""
    others = [member.user for member in team.members if member.user != user]
    return MemberNotFoundError(team.team, user, others, removed=any(member.user == user for member in team.removed))


async def explained(
    refused: TeamNotFoundError | MemberNotFoundError, describe: Callable[[str], Awaitable[AccountDescription]]
) -> CreditError:
    """Return the engine's refusal, completed with the state of the account or the members of the team.

    Args:
        refused: the engine's error.
        describe: returns the state of an account.
    """
    try:
        team = team_of(await describe(refused.team))
    except TeamNotFoundError as error:
        return error
    except StoreError:
        return refused  # the refusal stands all the same
    return no_member(team, refused.member) if isinstance(refused, MemberNotFoundError) else refused
