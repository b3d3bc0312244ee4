"""`ducto doctor`: looks at the server, the namespace and the ledger, and says what is wrong and what to do."""
