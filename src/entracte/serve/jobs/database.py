"""Opening the database, reading and writing. Every failure is a DatabaseError."""

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
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from entracte.errors import EntracteError

from .job import Job
from .tables import SCHEMA, UPGRADES, metadata

# Tables by which a database of any version of ours is known.
OLDEST = frozenset({"jobs", "keys", "deliveries"})

# How long a writer waits for another one before it gives up.
LOCK_SECONDS = 10.0

# sqlite3's errors come bare from connecting; a row's JSON may be damaged where its page is.
FAILURES = (SQLAlchemyError, sqlite3.Error, json.JSONDecodeError, UnicodeDecodeError)


class DatabaseError(EntracteError):
    """The database cannot be used: it is not ours, damaged, locked, gone, or without room."""


def open_database(path: Path, make: bool = True) -> Engine:
    """Open the SQLite database at a path; make it if it is missing and `make` allows that.

    Writers wait for each other; readers wait for nobody (write-ahead log). A commit is on the disk
    when it returns. Raises DatabaseError for what is not a database of this version's.
    """
    if make:
        # SQLite gives its other files the mode of this one.
        with _failing(path), suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with _failing(path):
        file = path.stat()
        # Our own way to open one would change somebody else's.
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
            _version(connection, path)
        engine = create_engine(
            # A connection that is made later may not make the file: it would hide that it is gone.
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
    """A transaction that excludes all other writers; rolled back where the block raises.

    Jobs that come out of it may be used after it. Raises DatabaseError, but IntegrityError where a
    row contradicts another one.
    """
    with _failing(), Session(engine, expire_on_commit=False) as session:
        if engine.dialect.name == "sqlite":
            session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        yield session
        session.commit()


def read_rows(engine: Engine, query: Select[Any]) -> list[RowMapping]:
    """All rows of a query, by one statement; raises DatabaseError."""
    with _failing(), engine.connect() as connection:
        return list(connection.execute(query).mappings())


def read_jobs(engine: Engine, query: Select[Job]) -> list[Job]:
    """All jobs of a query, by one statement; raises DatabaseError."""
    with _failing(), Session(engine) as session:
        return list(session.scalars(query))


def _upgrade(connection: Connection, version: int) -> None:
    """Bring an earlier version's tables up to date. version: 0 where there are none yet."""
    for number, statements in UPGRADES.items():
        if 0 < version <= number:
            for statement in statements:
                connection.execute(text(statement))


@contextmanager
def _failing(path: Path | None = None) -> Iterator[None]:
    """Whatever the database fails with as a DatabaseError. path: of one that is being opened."""
    try:
        yield
    except IntegrityError:
        raise
    except FAILURES as error:
        words = str(getattr(error, "orig", None) or error).splitlines()[0]
        where = "the database failed" if path is None else f"cannot use the database {path}"
        raise DatabaseError(f"{where}: {words}") from error
    except OSError as error:
        if path is None:
            raise
        raise DatabaseError(f"cannot use the database {path}: {error.strerror}") from error


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Of our tables, 0 where there are none at all; raises DatabaseError for somebody else's."""
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
        f"{path} is not a database of entracte: its tables are others. Give `data_folder` another "
        "folder",
        settings=("data_folder",),
    )


def _require_same(path: Path, file: os.stat_result) -> Callable[..., None]:
    """Whoever removes or replaces the file leaves us with one that the next start will not see."""

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
