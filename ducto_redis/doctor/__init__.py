"""Examinations of server, namespace and ledger: findings, each with its advice."""
