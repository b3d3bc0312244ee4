"""Suggestions for error messages: the names that exist, and the nearest of them."""

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 10
# Comparing takes time for each name: an error about one of many thousands must not take seconds.
_COMPARED = 500


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` where a known name is close to `name`, else an empty text."""
    others = [other for other in known if other != name][:_COMPARED]
    close = get_close_matches(name[:128], others, n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else ""


def there_are(name: str, known: Iterable[str]) -> str:
    """Return the known names as an error about `name` lists them: the first ten, how many more, and the closest.

    >>> there_are("gtp", ["gpt", "o3"])
    "'gpt', 'o3'; did you mean 'gpt'?"
    >>> there_are("gtp", [])
    'none'
    """
    names = list(known)
    if not names:
        return "none"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(repr, names[:_LISTED])) + more + did_you_mean(str(name), names)
