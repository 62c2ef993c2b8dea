"""Alembic's entry: runs on the connection that `bench.store.engine` hands over."""

from alembic import context

from bench.store.schema import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=False)
context.run_migrations()
