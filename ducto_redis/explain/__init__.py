"""Explanations of a transaction and of a balance, from the journal and the ledger."""
