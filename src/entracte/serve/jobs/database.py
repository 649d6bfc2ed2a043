"""Opens, reads and writes the database. Every failure is a DatabaseError."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, RowMapping, Select, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from entracte.errors import RequestError

from .failures import failing
from .job import Job
from .postgresql import open_postgresql
from .sqlite import open_sqlite


def open_database(place: Path | str, make: bool = True) -> Engine:
    """Open the database at a URL, or the SQLite database at a path.

    Its tables are brought to this version first; of several processes that open it, one does that
    and the others wait. make: whether an SQLite file may be created. Raises DatabaseError for
    anything but a database of this version, and RequestError for a URL of another kind.
    """
    if isinstance(place, Path):
        return open_sqlite(place, make)
    url = parse_url(place)
    return open_postgresql(url) if is_shared(url) else open_sqlite(sqlite_path(url), make)


def parse_url(text: str) -> URL:
    """A database's URL; raises RequestError unless it is one of SQLite or PostgreSQL."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise _bad_url("cannot be read as a URL") from None
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise _bad_url(f"has the scheme {url.drivername}")
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise _bad_url("names no file")
    return url


def is_shared(url: URL) -> bool:
    """Whether servers and workers on several machines can use it."""
    return url.get_backend_name() == "postgresql"


def sqlite_path(url: URL) -> Path:
    return Path(url.database or "").expanduser().absolute()


def _bad_url(what: str) -> RequestError:
    return RequestError(
        f"`database` {what}; write sqlite:////path/to/file, or postgresql+psycopg://user@host/name",
        settings=("database",),
    )


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A transaction, rolled back if the block raises. SQLite's exclude all other writers; those of
    PostgreSQL exclude each other by the rows or by the Lock that they `hold`.

    Its jobs may be used afterwards. Raises DatabaseError, but IntegrityError if a row violates a
    constraint.
    """
    with failing(), Session(engine, expire_on_commit=False) as session:
        if engine.dialect.name == "sqlite":
            session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        yield session
        session.commit()


def read_rows(engine: Engine, query: Select[Any]) -> list[RowMapping]:
    """All rows of a query, in one statement; raises DatabaseError."""
    with failing(), engine.connect() as connection:
        return list(connection.execute(query).mappings())


def read_jobs(engine: Engine, query: Select[Job]) -> list[Job]:
    """All jobs of a query, in one statement; raises DatabaseError."""
    with failing(), Session(engine) as session:
        return list(session.scalars(query))
