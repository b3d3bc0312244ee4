"""What a mutant is."""

from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """A change to a script that breaks a rule, and the test of the conformance suite that must notice."""

    script: str
    this: str
    by_that: str
    killed_by: str
    arguments: dict[str, Any] = {}  # noqa: RUF012 - never changed
