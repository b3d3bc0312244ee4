"""Explanations: the story of a transaction, and of a balance, told from the ledger."""
