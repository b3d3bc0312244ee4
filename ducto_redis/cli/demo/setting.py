"""The demo's customers and prices."""

from decimal import Decimal

from msgspec import Struct

LARGE = "stand-in-large"
SMALL = "stand-in-small"

FORMULAS = {
    LARGE: "uncached_input_tokens * 0.0025 + cache_read_tokens * 0.00125 + output_tokens * 0.01",
    SMALL: "input_tokens * 0.00015 + output_tokens * 0.0006",
}
PRICING = {"version": 1, "models": FORMULAS}


class Customer(Struct, frozen=True):
    """A customer of the endpoint.

    Attributes:
        account: who pays.
        credits: what they top up.
        model: what they ask.
        requests: how many they send, every other one streamed.
        hangs_up: whether they also begin a long stream, and leave in the middle.
    """

    account: str
    credits: Decimal
    model: str
    requests: int
    hangs_up: bool = False

    @property
    def api_key(self) -> str:
        """The bearer token that they send."""
        return f"demo-key-{self.account}"


CUSTOMERS = (
    Customer("ada", Decimal(250), LARGE, 60),
    Customer("ben", Decimal(18), LARGE, 40),
    Customer("cleo", Decimal(20), SMALL, 60, hangs_up=True),
)
