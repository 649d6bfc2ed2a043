"""Opening the database, transactions, and rows as jobs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, Select, create_engine, event, text

from entracte.errors import EntracteError

from .job import Job
from .tables import SCHEMA, UPGRADES, metadata

NAMES = tuple(each.name for each in fields(Job))


class DatabaseError(EntracteError):
    """The database cannot be used."""


def open_database(path: Path) -> Engine:
    """Open or make the SQLite database at a path.

    Writers wait for each other; readers wait for nobody (write-ahead log). A commit is on the disk
    when it returns. Raises DatabaseError for one that a later version made.
    """
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=20,
        max_overflow=40,
        connect_args={"timeout": 30.0},
        hide_parameters=True,  # errors are logged, and prompts are among the parameters
    )
    event.listen(engine, "connect", _prepare)
    with engine.connect() as connection:
        found = connection.execute(text("PRAGMA user_version")).scalar_one()
        if found > SCHEMA:
            raise DatabaseError(f"{path} was made by a later version of entracte; use that")
        _upgrade(connection, found)
        metadata.create_all(connection)
        connection.execute(text(f"PRAGMA user_version = {SCHEMA}"))
        connection.commit()
    path.chmod(0o600)
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that no other writer is in at the same time; undone where the block raises."""
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


def read_rows(engine: Engine, query: Select[Any]) -> list[RowMapping]:
    """All rows of a query, by one statement."""
    with engine.connect() as connection:
        return list(connection.execute(query).mappings())


def as_job(row: Mapping[Any, Any]) -> Job:
    return Job(**{name: row[name] for name in NAMES})


def _upgrade(connection: Connection, version: int) -> None:
    """Bring an earlier version's tables up to date. version: 0 where there are none yet."""
    for number, statements in UPGRADES.items():
        if 0 < version <= number:
            for statement in statements:
                connection.execute(text(statement))


def _prepare(connection: Any, _: object) -> None:
    # We begin transactions ourselves: sqlite3 would begin them late, and two writers could meet.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
