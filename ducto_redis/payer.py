"""The payer of a request."""

from msgspec import Struct


class Payer(Struct, frozen=True):
    """The payer of a request, as the middleware's `account(scope)` names it.

    Attributes:
        account: the account id that is charged.
        member: who spends, where the account is a team.
        operation_type: what the work is called in leases and in the ledger; None: what the API's recogniser calls it
            ("chat" for chat completions).
        required_feature: that the account's plan must have; without it the request is answered with 403.
        parent: an open lease of the account whose hold pays, as that of an agent's run; see `reserve`.

    >>> Payer("u1").account
    'u1'
    """

    account: str
    member: str | None = None
    operation_type: str | None = None
    required_feature: str | None = None
    parent: str | None = None
