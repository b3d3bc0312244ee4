"""The ledger's migrations under Alembic: on the connection, and in the transaction, of the caller."""

from alembic import context

from ducto_redis.ledger.migration import VERSION_TABLE
from ducto_redis.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
context.run_migrations()
