"""Did you mean?"""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` where a known name is close to `name`, else an empty text."""
    close = get_close_matches(name[:128], list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else ""
