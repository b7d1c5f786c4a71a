"""Runs the revisions on the connection, and in the transaction, of the one who opens the store."""

from alembic import context

from popmargin.label.store.sql_tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)  # fmt: skip
with context.begin_transaction():
    context.run_migrations()
