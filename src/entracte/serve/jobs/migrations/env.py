"""Alembic's entry: it runs revisions on the connection that `migrate` gives, in its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
