"""The other tables, and upgrades of those of earlier versions."""

from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, String, Table, Text

from .job import Base

# Version of the tables below. Databases of later versions are refused.
SCHEMA = 2

# From each version to the next. Missing tables are created anyway.
UPGRADES = {
    1: (
        "ALTER TABLE keys ADD COLUMN operator BOOLEAN NOT NULL DEFAULT 0",
        "UPDATE keys SET operator = 1 WHERE created_at = (SELECT min(created_at) FROM keys)",
        "ALTER TABLE jobs ADD COLUMN input_bytes INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE deliveries ADD COLUMN owner VARCHAR(40) NOT NULL DEFAULT ''",
        "ALTER TABLE jobs ADD COLUMN warnings JSON NOT NULL DEFAULT '[]'",
    ),
}

metadata = Base.metadata

keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("priority", Integer, nullable=False, default=0),
    Column("operator", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
)

# Sessions of browsers. hash: of the cookie's secret.
sessions = Table(
    "sessions",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("key_id", String(40), nullable=False),
    Column("expires_at", Float, nullable=False),
)

# The positions of deleted videos, so that paging through a list can continue after one.
deleted_jobs = Table(
    "deleted_jobs",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(38), nullable=False, unique=True),
    Column("owner", String(40), nullable=False),
)

# The outbox of webhooks, written in the transaction that ends a job, so none is lost.
deliveries = Table(
    "deliveries",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(40), nullable=False, unique=True),
    Column("url", Text, nullable=False),
    Column("owner", String(40), nullable=False, default=""),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("due_at", Float, nullable=False),
)
