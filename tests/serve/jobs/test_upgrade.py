"""Databases of earlier versions are taken over with what is in them."""

import sqlite3
from pathlib import Path

from entracte.serve.jobs.database import open_database
from entracte.serve.jobs.outbox import Outbox
from entracte.serve.jobs.store import JobStore
from entracte.serve.jobs.tables import SCHEMA
from entracte.serve.keys import KeyStore

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
        ((message,),) = Outbox(engine).due(now=10.0)
        assert (message.id, message.owner, message.attempts) == ("evt_1", "", 1)
        [job] = JobStore(engine, Outbox(engine)).waiting()
        assert (job.number, job.prompt, job.input_bytes) == (7, "A street", 0)
        engine.dispose()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    connection.close()
