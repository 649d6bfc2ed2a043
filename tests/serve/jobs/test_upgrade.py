"""Databases of earlier versions are taken over with what is in them."""

import sqlite3
from pathlib import Path

from entracte.serve.jobs.database import open_database
from entracte.serve.jobs.outbox import Outbox
from entracte.serve.jobs.tables import SCHEMA
from entracte.serve.keys import KeyStore

# As the first version made them.
FIRST = """
CREATE TABLE keys (
    id VARCHAR(40) NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, hash BLOB NOT NULL UNIQUE,
    priority INTEGER NOT NULL, created_at FLOAT NOT NULL
);
CREATE TABLE deliveries (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id VARCHAR(40) NOT NULL UNIQUE,
    url TEXT NOT NULL, body TEXT NOT NULL, attempts INTEGER NOT NULL, due_at FLOAT NOT NULL
);
INSERT INTO keys VALUES ('key_2', 'later', x'02', 0, 20.0), ('key_1', 'first', x'01', 5, 10.0);
INSERT INTO deliveries VALUES (1, 'evt_1', 'https://hooks.example/x', '{}', 1, 5.0);
PRAGMA user_version = 1;
"""


def test_the_first_versions_keys_and_messages_are_kept(tmp_path: Path) -> None:
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
        engine.dispose()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    connection.close()
