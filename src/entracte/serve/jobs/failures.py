"""Failures of the database. Every one is a DatabaseError."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from entracte.errors import EntracteError

# Connecting raises sqlite3's bare errors; damaged pages raise those of JSON and UTF-8.
FAILURES = (SQLAlchemyError, sqlite3.Error, json.JSONDecodeError, UnicodeDecodeError)


class DatabaseError(EntracteError):
    """The database cannot be used: not ours, damaged, locked, removed, unreachable or full."""


@contextmanager
def failing(opening: Path | URL | None = None) -> Iterator[None]:
    """Turn the database's failures into a DatabaseError. opening: the one that is being opened."""
    try:
        yield
    except IntegrityError:
        raise
    except FAILURES as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        words = (str(cause or error).splitlines() or [type(error).__name__])[0]
        where = "the database failed" if opening is None else f"cannot use the database {opening}"
        raise DatabaseError(f"{where}: {words}") from error
    except OSError as error:
        if opening is None:
            raise
        raise DatabaseError(f"cannot use the database {opening}: {error.strerror}") from error
