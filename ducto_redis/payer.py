"""Who pays for a request."""

from msgspec import Struct


class Payer(Struct, frozen=True):
    """Who pays for a request, as the middleware's `account(scope)` says.

    Attributes:
        account: the account id that is charged.
        operation_type: what the work is called in leases and in the ledger; None: what the API's recogniser calls it
            ("chat" for chat completions).

    >>> Payer("u1").account
    'u1'
    """

    account: str
    operation_type: str | None = None
