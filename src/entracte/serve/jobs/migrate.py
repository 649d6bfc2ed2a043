"""Brings the tables of an earlier version up to date, by the revisions in `migrations/versions`.

Revisions have the numbers of the versions that they make. A new database is made whole, at the
newest one.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def migrate(connection: Connection, version: int | None = None) -> None:
    """Run the revisions that are missing, within the connection's transaction.

    version: of tables that have no note of it.
    """
    if version is not None:
        stamp(connection, version)
    command.upgrade(_config(connection), "head")


def stamp(connection: Connection, version: int) -> None:
    """Note the version of the tables."""
    command.stamp(_config(connection), f"{version:04}", purge=True)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    return config
