"""Transactions, and rows as jobs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, Select

from .job import Job

NAMES = tuple(each.name for each in fields(Job))


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
