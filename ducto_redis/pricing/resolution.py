"""Resolution of a model's name to the entry of a document that prices it.

The exact name; else the name that remains without a date, `-latest` or an `@version` at the end; else the longest
entry written `name*` that the name begins with; else `_default`.

Where an account's plan has rates of its own, an override that names the model by one of the first three ways wins over
whatever entry the document has for it, however exactly that one names it. Only then the document's entries count; an
override of `_default` takes the place of the document's `_default`, for models that nothing names.
"""

import re
from collections.abc import Collection, Iterator
from datetime import date
from typing import TypeVar

Table = TypeVar("Table", bound=Collection[str])

DEFAULT = "_default"
WILDCARD = "*"

# Each way of writing a date that providers use at the end of a model's name, with or without a year.
_DATES = (
    re.compile(r"-(?P<year>20\d\d)-(?P<month>\d\d)-(?P<day>\d\d)"),
    re.compile(r"-(?P<year>20\d\d)(?P<month>\d\d)(?P<day>\d\d)"),
    re.compile(r"-(?P<year>20\d\d)-(?P<month>\d\d)"),
    re.compile(r"-(?P<month>\d\d)-(?P<year>20\d\d)"),
    re.compile(r"-(?P<month>\d\d)-(?P<day>\d\d)"),
    re.compile(r"-(?P<month>\d\d)(?P<day>\d\d)"),
    re.compile(r"-(?P<short_year>2\d)(?P<month>\d\d)"),
)
_LONGEST_DATE = len("-2024-08-06")
_VERSION = re.compile(r"@[A-Za-z0-9][A-Za-z0-9._-]*")
_LATEST = "-latest"


def resolve(name: str | None, entries: Collection[str]) -> str | None:
    """Return which of `entries` prices the model `name` (None: a request without a model); None where none does.

    >>> resolve("gpt-4o-2024-08-06", ["gpt-4o", "gpt*"])
    'gpt-4o'
    >>> resolve("gpt-4o-mini", ["gpt-4o", "gpt*"])
    'gpt*'
    """
    entry = resolve_named(name, entries) if name is not None else None
    return DEFAULT if entry is None and DEFAULT in entries else entry


def resolve_rate(name: str | None, models: Table, overrides: Table) -> tuple[Table, str] | None:
    """Return what prices a model under a plan: `overrides` or `models`, and which entry of it; None where nothing does.

    >>> resolve_rate("gpt-4o", ["gpt-4o", "_default"], ["gpt*"])
    (['gpt*'], 'gpt*')
    """
    override = resolve_named(name, overrides) if name is not None else None
    if override is not None:
        return overrides, override
    entry = resolve(name, models)
    if entry == DEFAULT and DEFAULT in overrides:
        return overrides, DEFAULT
    return None if entry is None else (models, entry)


def resolve_named(name: str, entries: Collection[str]) -> str | None:
    """Return which of `entries` names the model `name`, itself or by a wildcard; None where only `_default` is left."""
    entry = resolve_version(name, entries)
    if entry is None:
        patterns = [entry for entry in entries if entry.endswith(WILDCARD) and name.startswith(entry[:-1])]
        return max(patterns, key=len, default=None)
    return entry


def resolve_version(name: str, entries: Collection[str]) -> str | None:
    """Return which of `entries` is the model `name` itself: the exact name, or what `name` is a dated version of."""
    for candidate in (name, *_without_version(name)):
        if candidate in entries and candidate != DEFAULT and not candidate.endswith(WILDCARD):
            return candidate
    return None


def cap_model(name: str, models: Collection[str], overrides: Collection[str]) -> str:
    """Return the name under which spend caps count the model `name`: its entry among the models, else the overrides."""
    return resolve_version(name, models) or resolve_version(name, overrides) or name


def _without_version(name: str) -> Iterator[str]:
    """Yield what a name is a version of, the longest first."""
    if name.endswith(_LATEST):
        yield name[: -len(_LATEST)]
    at = name.rfind("@")
    if at > 0 and _VERSION.fullmatch(name, at):
        yield name[:at]
    for start in range(len(name) - len("-0806"), max(0, len(name) - _LONGEST_DATE) - 1, -1):
        if name[start] == "-" and any(_is_date(pattern, name, start) for pattern in _DATES):
            yield name[:start]


def _is_date(pattern: re.Pattern[str], name: str, start: int) -> bool:
    match = pattern.fullmatch(name, start)
    if match is None:
        return False
    parts = {unit: int(digits) for unit, digits in match.groupdict().items()}
    try:
        # A date without a year may be a leap day; one without a day is any day of its month.
        date(parts.get("year", 2024), parts["month"], parts.get("day", 1))
    except ValueError:
        return False
    return True
