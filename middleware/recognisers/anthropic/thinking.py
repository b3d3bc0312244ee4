"""The thinking of Anthropic's models: whether they do, and a budget for it that fits the limit on output."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ducto_redis.middleware.recognisers.json_request import with_field

_LEAST_BUDGET = 1024
# Models that reason only where the request says so; later ones decide for themselves.
_REASONS_WHEN_TOLD = re.compile(r"claude-(?:instant|[123]|(?:opus|sonnet|haiku)-4)")


def with_fitting_budget(body: bytes, path: Sequence[str], thinking: Mapping[str, Any] | None, limit: int) -> bytes:
    """Return a request's body with a budget below `limit`; without thinking, where less than its least would be left.

    Args:
        body: the request's, with its limit lowered to `limit` tokens.
        path: where its settings for thinking stand.
        thinking: what they are; None for none.
        limit: the tokens of the response.
    """
    budget = None if thinking is None else thinking.get("budget_tokens")
    if type(budget) is not int or budget < limit:
        return body
    if limit > _LEAST_BUDGET:
        return with_field(body, (*path, "budget_tokens"), limit - 1)
    return with_field(body, path, {"type": "disabled"})


def may_reason(thinking: Mapping[str, Any] | None, model: str | None) -> bool:
    """Tell whether a model may reason, which it shows in part or not at all.

    Args:
        thinking: the request's settings for it; None for none.
        model: the request's.
    """
    if thinking is not None:
        return thinking.get("type") != "disabled"
    return model is not None and "claude" in model and _REASONS_WHEN_TOLD.search(model) is None
