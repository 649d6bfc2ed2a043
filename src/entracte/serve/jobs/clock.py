"""The time, from the clock that all who use a database share."""

import time
from collections.abc import Callable

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from .failures import failing

# From a transaction to Unix seconds.
TimeOf = Callable[[Session], float]


def database_clock(engine: Engine) -> TimeOf:
    """The clock of PostgreSQL's server; this machine's for SQLite, which is on it."""
    return _server_time if engine.dialect.name == "postgresql" else lambda _: time.time()


def now(engine: Engine) -> float:
    """The time, outside any transaction; raises DatabaseError."""
    with failing(), Session(engine) as session:
        return database_clock(engine)(session)


def _server_time(session: Session) -> float:
    now = select(func.extract("epoch", func.clock_timestamp()))
    return float(session.scalars(now).one())
