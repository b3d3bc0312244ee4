"""Keys, scripts, operations and the link: everything that knows Redis, and nothing that knows people."""
