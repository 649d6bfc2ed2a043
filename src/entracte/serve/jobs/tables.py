"""The other tables. A change of any needs a revision in `migrations/versions`."""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    inspect,
)

from .job import Base

# Version of the tables below. Databases of later versions are refused.
SCHEMA = 3

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

# Workers on any machine. view: a WorkerSnapshot. seen_at: when it last said so.
workers = Table(
    "workers",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("view", JSON, nullable=False),
    Column("seen_at", Float, nullable=False),
)

# The newest picture of each running video, for whoever watches it.
previews = Table(
    "previews",
    metadata,
    Column("video_id", String(38), primary_key=True),
    Column("step", Integer, nullable=False),
    Column("image", LargeBinary, nullable=False),
)

# What all servers share, such as what webhooks are signed with.
secrets = Table(
    "secrets",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)


def missing_columns(connection: Connection) -> set[str]:
    """The columns that our tables should have and do not."""
    wanted, found = set(), set()
    seen = inspect(connection)
    there = set(seen.get_table_names())
    for table in metadata.tables.values():
        wanted |= {f"{table.name}.{column.name}" for column in table.columns}
        if table.name in there:
            found |= {f"{table.name}.{each['name']}" for each in seen.get_columns(table.name)}
    return wanted - found
