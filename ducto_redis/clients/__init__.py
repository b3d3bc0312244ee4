"""Clients of providers that charge credits for each of their calls: `metered(OpenAI(), manager, account="u1")`."""

from ducto_redis.clients.payer import Account, paid_by
from ducto_redis.clients.wrapping import credit_error, metered

__all__ = ["Account", "credit_error", "metered", "paid_by"]
