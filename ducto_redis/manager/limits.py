"""Limits of an account: its floor, the number of its open leases, and its features.

The most specific setting wins: the call, the plan for this type of operation, the plan, the manager.
"""

from msgspec import Struct

from ducto_redis.manager.pricing_book import Pricing
from ducto_redis.money import to_signed_micro
from ducto_redis.pricing.plans import BillingMode, Plan


class Limits(Struct, frozen=True):
    """The limits that hold if neither the call nor the account's plan says otherwise.

    Attributes:
        mode: the billing mode.
        overdraft_floor: micro-credits, zero or below, to which accounts may go in overdraft.
        max_concurrent: the number of leases of one operation type that an account may have open; None for any.
    """

    mode: BillingMode
    overdraft_floor: int = 0
    max_concurrent: int | None = None

    def floor(
        self, pricing: Pricing | None, plan: Plan | None, operation_type: str, billing_mode: BillingMode | None
    ) -> int:
        """Return the lowest level of the available credits, in micro-credits.

        A call's billing mode replaces only the mode: the floor of an overdraft is the plan's, or the manager's.
        """
        mode, floor = self.mode, self.overdraft_floor
        if plan is not None:
            operation = plan.per_operation.get(operation_type)
            mode = (operation and operation.billing_mode) or plan.default_billing_mode or mode
            if operation is not None and operation.overdraft_floor is not None:
                floor = to_signed_micro(operation.overdraft_floor)
            elif plan.overdraft_floor is not None:
                floor = to_signed_micro(plan.overdraft_floor)
        if billing_mode is not None:
            mode = billing_mode
        if mode == "strict":
            return 0 if pricing is None else pricing.engine.min_balance_micro
        return floor

    def concurrent(self, plan: Plan | None, operation_type: str) -> int | None:
        """Return the number of leases of this operation type that may be open at once; None for any."""
        if plan is not None:
            operation = plan.per_operation.get(operation_type)
            if operation is not None and operation.max_concurrent is not None:
                return operation.max_concurrent
            if plan.max_concurrent is not None:
                return plan.max_concurrent
        return self.max_concurrent


def features_of(plan: Plan | None) -> list[str]:
    """Return the names of the features that a plan has."""
    return [] if plan is None else [name for name in plan.features if has_feature(plan, name)]


def has_feature(plan: Plan | None, feature: str) -> bool:
    """Return True if a plan has a feature: a value that is neither None nor False. 0 and "" are values."""
    value = None if plan is None else plan.features.get(feature)
    return value is not None and value is not False
