"""Teams and members that are not there: what to say of them.

The engine only knows that somebody is no member. What the account is, and who its members are, is asked for when a call
was refused, so that calls that are admitted pay nothing for it.
"""

from collections.abc import Awaitable, Callable

from ducto_redis.errors import CreditError, MemberNotFoundError, StoreError, TeamNotFoundError
from ducto_redis.results import AccountDescription, Team, TeamMember

UNKNOWN = (TeamNotFoundError, MemberNotFoundError)
"""The refusals that `explained` has more to say of."""


def team_of(description: AccountDescription) -> Team:
    """The team that an account is. Raises TeamNotFoundError, which says what the account is instead."""
    if description.team is None:
        raise TeamNotFoundError(description.account, exists=description.balance.seq > 0)
    return description.team


def member_of(description: AccountDescription, user: str) -> TeamMember:
    """A member of the team that an account is; one who was removed counts too.

    Raises:
        TeamNotFoundError: if the account is no team.
        MemberNotFoundError: names the members that there are.
    """
    team = team_of(description)
    for member in (*team.members, *team.removed):
        if member.user == user:
            return member
    raise no_member(team, user)


def no_member(team: Team, user: str) -> MemberNotFoundError:
    """The error that somebody is no member of a team, or not any more."""
    others = [member.user for member in team.members if member.user != user]
    return MemberNotFoundError(team.team, user, others, removed=any(member.user == user for member in team.removed))


async def explained(
    refused: TeamNotFoundError | MemberNotFoundError, describe: Callable[[str], Awaitable[AccountDescription]]
) -> CreditError:
    """The engine's refusal with what there is: the account is no team, or who its members are.

    Args:
        refused: the engine's error.
        describe: looks at the account.
    """
    try:
        team = team_of(await describe(refused.team))
    except TeamNotFoundError as error:
        return error
    except StoreError:
        return refused  # it was refused all the same
    return no_member(team, refused.member) if isinstance(refused, MemberNotFoundError) else refused
