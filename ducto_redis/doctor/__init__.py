"""Examinations of server, namespace and ledger. Each gives findings with advice."""
