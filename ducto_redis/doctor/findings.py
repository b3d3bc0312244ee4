"""What the doctor found."""

from typing import Literal, TypeAlias

from msgspec import Struct

Status: TypeAlias = Literal["ok", "warning", "error"]


class Finding(Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        check: what it was.
        status: `error` is for what loses money or stops the work, `warning` for what may.
        detail: what was found.
        advice: what to do about it; empty where all is well.
    """

    check: str
    status: Status
    detail: str
    advice: str = ""
