"""SQLite: one file, for one server and its workers."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text

from .failures import DatabaseError, failing
from .tables import SCHEMA, metadata, missing_columns

# Tables by which a database of any version of ours is known.
OLDEST = frozenset({"jobs", "keys", "deliveries"})

# How long a writer waits for another one.
LOCK_SECONDS = 10.0


def open_sqlite(path: Path, make: bool = True) -> Engine:
    """Open the database at a path; make it if it is missing and `make` allows that.

    Writers wait for each other; readers never wait (write-ahead log). A commit is on disk when it
    returns. Raises DatabaseError for anything but a database of ours.
    """
    if make:
        # SQLite gives its other files the mode of this one.
        with failing(path), suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with failing(path):
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
            _bring_up(opened, path)
            opened.commit()
    return engine


def _bring_up(connection: Connection, path: Path) -> None:
    """Make the tables, or bring those of an earlier version up to date."""
    version = _version(connection.connection.driver_connection, path)  # type: ignore[arg-type]
    if version == 0:
        metadata.create_all(connection)
    elif version < SCHEMA:
        from .migrate import migrate  # which takes a while to import

        migrate(connection, version)
    if missing_columns(connection):
        raise _not_ours(path)
    connection.execute(text(f"PRAGMA user_version = {SCHEMA}"))


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
