"""Pricing: formulas, the pricing document, and the engine that turns usage into credits.

- `tokens`, `grammar`, `tree`: a formula's text becomes a tree.
- `functions`, `measures`, `checking`: what the tree may hold.
- `lowering`, `forms`, `syntax`, `compiling`: the tree becomes Python functions in exact integer arithmetic; `rational`
  calculates what cannot be lowered; `exact` holds the literals and the one way of rounding.
- `formula`: all of this for one formula.
- `loading`, `reading`, `entries`, `plans`, `spend_caps`, `document`: from text to a checked pricing document.
- `resolution`, `prices`: which entry prices a model.
- `usage`, `breakdown`, `engine`: from a usage to its price.
"""

from ducto_redis.pricing.breakdown import CostBreakdown, CostLine
from ducto_redis.pricing.document import PricingDocument
from ducto_redis.pricing.engine import PricingEngine
from ducto_redis.pricing.plans import OperationLimits, Plan
from ducto_redis.pricing.spend_caps import SpendCap

__all__ = ["CostBreakdown", "CostLine", "OperationLimits", "Plan", "PricingDocument", "PricingEngine", "SpendCap"]
