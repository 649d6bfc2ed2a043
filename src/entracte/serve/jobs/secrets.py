"""Secrets that all servers of a database share."""

from collections.abc import Callable

from sqlalchemy import Engine, insert, select

from .database import writing
from .locks import Lock, hold
from .tables import secrets


def shared_secret(engine: Engine, name: str, make: Callable[[], str]) -> str:
    """The secret of that name, made by the first who asks; raises DatabaseError."""
    with writing(engine) as session:
        hold(session, Lock.HOUSEKEEPING)
        found = session.scalar(select(secrets.c.value).where(secrets.c.name == name))
        if found is None:
            found = make()
            session.execute(insert(secrets).values(name=name, value=found))
        return str(found)
