"""Databases of earlier versions are taken over with what is in them."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import make_url

from entracte.errors import RequestError
from entracte.serve.jobs import sqlite
from entracte.serve.jobs.database import open_database
from entracte.serve.jobs.failures import DatabaseError
from entracte.serve.jobs.outbox import Outbox
from entracte.serve.jobs.store import JobStore
from entracte.serve.jobs.tables import SCHEMA, metadata
from entracte.serve.keys import KeyStore
from tests.serve.postgresql import Postgresql

# As the first version made them.
FIRST = """
CREATE TABLE jobs (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id VARCHAR(38) NOT NULL UNIQUE,
    owner VARCHAR(40) NOT NULL, status VARCHAR(12) NOT NULL, model TEXT NOT NULL,
    prompt TEXT NOT NULL, size VARCHAR(20) NOT NULL, seconds VARCHAR(20) NOT NULL,
    settings JSON NOT NULL, images JSON NOT NULL, priority INTEGER NOT NULL,
    created_at FLOAT NOT NULL, revision INTEGER NOT NULL, attempts INTEGER NOT NULL,
    started_at FLOAT, completed_at FLOAT, expires_at FLOAT, progress INTEGER NOT NULL, stage TEXT,
    step INTEGER NOT NULL, steps INTEGER NOT NULL, seconds_left FLOAT,
    stage_durations JSON NOT NULL, peak_memory_mb FLOAT, estimated_s FLOAT, bytes INTEGER,
    error_code VARCHAR(40), error_message TEXT, worker VARCHAR(80), lease_until FLOAT,
    cancel_requested BOOLEAN NOT NULL, deleted BOOLEAN NOT NULL, webhook_url TEXT,
    idempotency_key VARCHAR(255), fingerprint VARCHAR(64) NOT NULL,
    UNIQUE (owner, idempotency_key)
);
CREATE TABLE keys (
    id VARCHAR(40) NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, hash BLOB NOT NULL UNIQUE,
    priority INTEGER NOT NULL, created_at FLOAT NOT NULL
);
CREATE TABLE deliveries (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id VARCHAR(40) NOT NULL UNIQUE,
    url TEXT NOT NULL, body TEXT NOT NULL, attempts INTEGER NOT NULL, due_at FLOAT NOT NULL
);
INSERT INTO jobs VALUES (
    7, 'video_1', 'key_1', 'queued', 'ltx-2.3', 'A street', '64x64', '0.4', '{}', '[]', 0, 10.0, 0,
    0, NULL, NULL, NULL, 0, NULL, 0, 0, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0,
    NULL, NULL, ''
);
INSERT INTO keys VALUES ('key_2', 'later', x'02', 0, 20.0), ('key_1', 'first', x'01', 5, 10.0);
INSERT INTO deliveries VALUES (1, 'evt_1', 'https://hooks.example/x', '{}', 1, 5.0);
PRAGMA user_version = 1;
"""


def test_what_the_first_version_wrote_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST)
    connection.close()
    for _ in range(2):  # the second time there is nothing to do
        engine = open_database(path)
        first, later = KeyStore(engine).list()
        assert (first.name, first.priority, first.operator) == ("first", 5, True)
        assert (later.name, later.operator) == ("later", False)
        ((message,),) = Outbox(engine).due(10.0)
        assert (message.id, message.owner, message.attempts) == ("evt_1", "", 1)
        [job] = JobStore(engine, Outbox(engine)).waiting()
        assert (job.number, job.prompt, job.input_bytes) == (7, "A street", 0)
        engine.dispose()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    connection.close()


def version_2(path: Path) -> None:
    """As the code before fleets left it, with videos in every state."""
    with sqlite3.connect(path) as connection:
        connection.executescript(Path(__file__).with_name("version-2.sql").read_text())
    connection.close()


def test_what_the_second_version_wrote_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    version_2(path)
    with sqlite3.connect(path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
        before = connection.execute("SELECT * FROM jobs ORDER BY number").fetchall()
    connection.close()
    engine = open_database(path)
    store = JobStore(engine, Outbox(engine))
    found = store.page(None, None, 10, newest_first=False)
    states = [(job.number, job.status, job.error_code) for job in found]
    assert states == [
        (1, "completed", None),
        (2, "in_progress", None),
        (3, "failed", "cancelled"),
        (5, "queued", None),
    ]
    with engine.connect() as connection:
        query = f"SELECT {', '.join(columns)} FROM jobs ORDER BY number"
        assert [tuple(row) for row in connection.exec_driver_sql(query)] == before
    assert {job.file for job in found} == {"video.mp4"}
    assert found[0].warnings == [{"lora": "x", "message": "m", "keys": 2}]
    assert (found[1].stage, found[1].images[0]["strength"]) == ("denoise", 0.5)
    assert store.place("video_00000000000000000000000000000004", found[0].owner) == 4
    assert [key.name for key in KeyStore(engine).list()] == ["ann"]
    assert sum(len(messages) for messages in Outbox(engine).due(2000.0)) == 2
    assert [job.id for job in store.recover()] == [found[1].id]
    first, second = store.claim("w", 30.0), store.claim("w", 30.0)
    assert first is not None
    assert second is not None
    assert (first.number, first.attempts, second.number) == (2, 2, 5)
    engine.dispose()


def test_an_upgraded_database_is_as_a_new_one(tmp_path: Path) -> None:
    version_2(tmp_path / "old.db")
    engine = open_database(tmp_path / "old.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_an_upgrade_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.db"
    version_2(path)

    def fail(*_: object) -> None:
        raise RuntimeError("the machine fails")

    with monkeypatch.context() as broken:
        broken.setattr(sqlite, "missing_columns", fail)  # after the last revision
        with pytest.raises(RuntimeError):
            open_database(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert "workers" not in tables
    connection.close()
    open_database(path).dispose()


# PostgreSQL


def user_of(url: str) -> str:
    return make_url(url).username or ""


def test_of_many_who_open_a_new_database_one_makes_the_tables(postgresql: Postgresql) -> None:
    url = postgresql.new_database()
    with ThreadPoolExecutor(6) as threads:
        for engine in threads.map(lambda _: open_database(url), range(6)):
            assert KeyStore(engine).list() == []
            engine.dispose()
    assert postgresql.sql(user_of(url), "SELECT version_num FROM alembic_version") == [
        (f"{SCHEMA:04}",)
    ]


def test_the_tables_of_a_postgresql_database_are_as_declared(postgresql: Postgresql) -> None:
    engine = open_database(postgresql.new_database())
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE TABLE jobs (name TEXT)", "other tables"),
        ("CREATE TABLE alembic_version (version_num TEXT)", "other tables"),
        (
            "CREATE TABLE alembic_version AS SELECT '9999' AS version_num",
            "made by a later version",
        ),
    ],
)
def test_somebody_elses_postgresql_database_is_refused(
    postgresql: Postgresql, statement: str, words: str
) -> None:
    url = postgresql.new_database()
    postgresql.sql(user_of(url), statement)
    with pytest.raises(DatabaseError, match=words):
        open_database(url)


def test_an_unreachable_database_is_named_without_its_password() -> None:
    with pytest.raises(DatabaseError) as refused:
        open_database("postgresql+psycopg://ann:hunter2@127.0.0.1:1/entracte")
    assert "127.0.0.1:1/entracte" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["", "entracte.db", "mysql://host/name", "sqlite://", "a:b:c://"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(RequestError, match="sqlite:////path/to/file"):
        open_database(url)
