"""PostgreSQL: one database for any number of servers and workers."""

from importlib.util import find_spec

from sqlalchemy import URL, Connection, Engine, create_engine, func, inspect, select, text

from entracte.errors import RequestError

from .failures import DatabaseError, failing
from .locks import LOCKS, Lock
from .tables import SCHEMA, metadata, missing_columns

# Connections a process keeps, and how many more it may open for a while.
POOL, OVERFLOW = 10, 20

# How long anything waits: a connection, a lock, a statement, a transaction that does nothing. The
# last three are ended by the server, so that a client that is cut off holds nothing.
CONNECT_SECONDS = 5
LOCK_SECONDS = 10
STATEMENT_SECONDS = 30
IDLE_SECONDS = 60

# After this long without an answer to what was sent, a connection is given up.
SILENCE_SECONDS = 10

CONNECTING = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "entracte",
    "keepalives_idle": SILENCE_SECONDS // 2,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 1000 * SILENCE_SECONDS,
}


def open_postgresql(url: URL) -> Engine:
    """Open the database at a URL. Raises DatabaseError if it cannot be reached or is not ours."""
    if find_spec("psycopg") is None:
        raise RequestError(
            "a PostgreSQL database needs psycopg: pip install 'entracte[fleet]'",
            settings=("database",),
        )
    limits = {
        "lock_timeout": LOCK_SECONDS,
        "statement_timeout": STATEMENT_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
    }
    options = " ".join(f"-c {name}={1000 * seconds}" for name, seconds in limits.items())
    engine = create_engine(
        url,
        pool_size=POOL,
        max_overflow=OVERFLOW,
        pool_pre_ping=True,  # the server may have been restarted
        connect_args=CONNECTING | {"options": options},
        hide_parameters=True,  # errors are logged, and prompts are among the parameters
    )
    with failing(url), engine.begin() as connection:
        _bring_up(connection, url)
    return engine


def _bring_up(connection: Connection, url: URL) -> None:
    """Make the tables, or bring those of an earlier version up to date, while others wait."""
    from .migrate import migrate, stamp  # which take a while to import

    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(select(func.pg_advisory_xact_lock(LOCKS, int(Lock.MIGRATION))))
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" not in tables and not tables & set(metadata.tables):
        metadata.create_all(connection)
        stamp(connection, SCHEMA)
        return
    version = _version(connection) if "alembic_version" in tables else None
    if version is None:
        raise DatabaseError(f"{url} is not a database of entracte: it has other tables")
    if version > SCHEMA:
        raise DatabaseError(f"{url} was made by a later version of entracte; use that")
    if version < SCHEMA:
        migrate(connection)
    if missing_columns(connection):
        raise DatabaseError(f"{url} is not a database of entracte: its tables lack columns")


def _version(connection: Connection) -> int | None:
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return int(found) if found is not None and found.isdecimal() else None
