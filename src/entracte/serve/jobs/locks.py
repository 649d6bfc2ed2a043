"""Locks of a database that several servers share, held until a transaction ends."""

from enum import IntEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session

# The first key of our advisory locks; other programs may use the same server.
LOCKS = 0x656E7472


class Lock(IntEnum):
    """Work that one transaction does at a time, whatever rows it touches."""

    MIGRATION = 1
    ADMISSION = 2
    CLAIM = 3
    HOUSEKEEPING = 4


def hold(session: Session, lock: Lock) -> None:
    """Wait for a lock, and keep it until the transaction ends."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(LOCKS, int(lock))))
