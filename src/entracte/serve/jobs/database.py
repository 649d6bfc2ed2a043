"""Opens, reads and writes the database. Every failure is a DatabaseError."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    RowMapping,
    Select,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from entracte.errors import EntracteError

from .job import Job
from .tables import SCHEMA, UPGRADES, metadata

# Tables by which a database of any version of ours is known.
OLDEST = frozenset({"jobs", "keys", "deliveries"})

# How long a writer waits for another one.
LOCK_SECONDS = 10.0

# Connecting raises sqlite3's bare errors; damaged pages raise those of JSON and UTF-8.
FAILURES = (SQLAlchemyError, sqlite3.Error, json.JSONDecodeError, UnicodeDecodeError)


class DatabaseError(EntracteError):
    """The database cannot be used: not ours, damaged, locked, removed, or the disk is full."""


def open_database(path: Path, make: bool = True) -> Engine:
    """Open the SQLite database at a path; make it if it is missing and `make` allows that.

    Writers wait for each other; readers never wait (write-ahead log). A commit is on disk when it
    returns. Raises DatabaseError for anything but a database of this version.
    """
    if make:
        # SQLite gives its other files the mode of this one.
        with _failing(path), suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with _failing(path):
        file = path.stat()
        # Opening it our way would change a database that is not ours.
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
            _version(connection, path)
        engine = create_engine(
            # Later connections must not create the file: that would hide that it was removed.
            f"sqlite:///{path.as_uri()}?mode=rw&uri=true",
            pool_size=20,
            max_overflow=40,
            connect_args={"timeout": LOCK_SECONDS},
            hide_parameters=True,  # errors are logged, and prompts are among the parameters
        )
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "checkout", _require_same(path, file))
        with engine.connect() as opened:
            opened.exec_driver_sql("BEGIN IMMEDIATE")
            _upgrade(opened, _version(opened.connection.driver_connection, path))  # type: ignore[arg-type]
            metadata.create_all(opened)
            _require_columns(opened, path)
            opened.execute(text(f"PRAGMA user_version = {SCHEMA}"))
            opened.commit()
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A transaction that excludes all other writers; rolled back if the block raises.

    Its jobs may be used afterwards. Raises DatabaseError, but IntegrityError if a row violates a
    constraint.
    """
    with _failing(), Session(engine, expire_on_commit=False) as session:
        if engine.dialect.name == "sqlite":
            session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        yield session
        session.commit()


def read_rows(engine: Engine, query: Select[Any]) -> list[RowMapping]:
    """All rows of a query, in one statement; raises DatabaseError."""
    with _failing(), engine.connect() as connection:
        return list(connection.execute(query).mappings())


def read_jobs(engine: Engine, query: Select[Job]) -> list[Job]:
    """All jobs of a query, in one statement; raises DatabaseError."""
    with _failing(), Session(engine) as session:
        return list(session.scalars(query))


def _upgrade(connection: Connection, version: int) -> None:
    """Bring an earlier version's tables up to date. version: 0 if there are no tables yet."""
    for number, statements in UPGRADES.items():
        if 0 < version <= number:
            for statement in statements:
                connection.execute(text(statement))


@contextmanager
def _failing(path: Path | None = None) -> Iterator[None]:
    """Turn the database's failures into a DatabaseError. path: of one that is being opened."""
    try:
        yield
    except IntegrityError:
        raise
    except FAILURES as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        words = str(cause or error).splitlines()[0]
        where = "the database failed" if path is None else f"cannot use the database {path}"
        raise DatabaseError(f"{where}: {words}") from error
    except OSError as error:
        if path is None:
            raise
        raise DatabaseError(f"cannot use the database {path}: {error.strerror}") from error


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of our tables, 0 if there are none; raises DatabaseError for other tables."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA:
        raise DatabaseError(f"{path} was made by a later version of entracte; use that")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version == 0 and not tables:
        return 0
    if version == 0 or not tables >= OLDEST:
        raise _not_ours(path)
    return int(version)


def _require_columns(connection: Connection, path: Path) -> None:
    for table in metadata.tables.values():
        found = {each["name"] for each in inspect(connection).get_columns(table.name)}
        if not {column.name for column in table.columns} <= found:
            raise _not_ours(path)


def _not_ours(path: Path) -> DatabaseError:
    return DatabaseError(
        f"{path} is not a database of entracte: it has other tables. Set `data_folder` to another "
        "folder",
        settings=("data_folder",),
    )


def _require_same(path: Path, file: os.stat_result) -> Callable[..., None]:
    """A check that the file is still the one opened: later starts would not see our writes."""

    def check(*_: object) -> None:
        try:
            now = path.stat()
        except OSError:
            raise DatabaseError(f"the database failed: {path.name} was removed") from None
        if (now.st_dev, now.st_ino) != (file.st_dev, file.st_ino):
            raise DatabaseError(f"the database failed: {path.name} was replaced")

    return check


def _prepare(connection: Any, _: object) -> None:
    # We begin transactions ourselves: sqlite3 would begin them late, and two writers could meet.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
