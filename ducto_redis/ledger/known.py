"""What a ledger knows by name, to tell what is unknown from what was only never used."""

from collections.abc import Collection

import msgspec
from sqlalchemy import Connection, func, select

from ducto_redis.errors import ConfigError, TeamNotFoundError
from ducto_redis.ledger.rollups import COUNTED_BY_NAME
from ducto_redis.ledger.schema import USAGE_SUMS, accounts, measures
from ducto_redis.suggestions import did_you_mean

_LISTED = 20
_TEAM_FIELD = "team"


def check_measure(connection: Connection, namespace: str, measure: str, declared: Collection[str]) -> None:
    """Refuse a measure that is neither a field of a usage, nor declared, nor counted in this ledger.

    Args:
        connection: of the ledger.
        namespace: whose.
        measure: the name.
        declared: measures of the pricing document, which may never have been used.

    Raises:
        ConfigError: names the measures that there are.
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


def check_team(connection: Connection, namespace: str, account: str) -> None:
    """Raise TeamNotFoundError where the ledger does not know the account for a team."""
    its = accounts.c
    fields = connection.scalar(select(its.fields).where(its.namespace == namespace, its.account == account))
    if fields is None:
        raise TeamNotFoundError(account, exists=False)
    if _TEAM_FIELD not in msgspec.json.decode(fields, type=dict[str, str]):
        raise TeamNotFoundError(account, exists=True)


def _counted_measures(connection: Connection, namespace: str) -> list[str]:
    # One step in the index for each name: there may be millions of rows of one measure.
    found: list[str] = []
    its = measures.c
    while len(found) < _LISTED:
        after = [its.measure > found[-1]] if found else []
        name = connection.scalar(select(func.min(its.measure)).where(its.namespace == namespace, *after))
        if name is None:
            break
        found.append(name)
    return found
