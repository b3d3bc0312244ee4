"""The findings of an examination."""

from typing import Literal, TypeAlias

from msgspec import Struct

Status: TypeAlias = Literal["ok", "warning", "error"]


class Finding(Struct, frozen=True):
    """The result of one check.

    Attributes:
        check: the name of the check.
        status: `error` if it loses money or stops the work, `warning` if it may, else `ok`.
        detail: the facts that were found.
        advice: the remedy; empty if all is well.
    """

    check: str
    status: Status
    detail: str
    advice: str = ""
