"""A real PostgreSQL, as an unprivileged user, in a temporary folder."""

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

NO_POSTGRESQL = "There is no PostgreSQL (apt-get install postgresql): tests with it are skipped."

# What it refuses to run as is root.
USER = "nobody"

SETTINGS = {
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "1200",
    "shared_buffers": "64MB",
    "autovacuum": "off",
}


def programs() -> Path | None:
    """The folder of its newest version's programs."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(found, key=lambda each: float(each.parts[-3]), default=None)
    on_path = shutil.which("postgres")
    return newest.parent if newest else Path(on_path).parent if on_path else None


class Postgresql:
    """A server for as long as the block lasts; it keeps its port over restarts."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._names = itertools.count()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> "Postgresql":
        if os.getuid() == 0:
            shutil.chown(self._folder, USER)
        flags = ["--auth=trust", "--username=entracte", "--no-sync", "--encoding=UTF8"]
        self._run("initdb", "--locale=C", *flags, str(self._data))
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
            file.write(f"port = {self.port}\nunix_socket_directories = '{self._folder}'\n")
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._control("start", "--wait", "--timeout=120", f"--log={self._folder / 'log'}")

    def stop(self) -> None:
        """Stop it at once, as a failing machine would."""
        self._control("stop", "--mode=immediate", "--wait")

    def new_database(self) -> str:
        """The URL of an empty schema that a user of its own owns: quicker than a database."""
        name = f"test_{next(self._names)}"
        self.sql("entracte", f"CREATE ROLE {name} LOGIN")
        self.sql("entracte", f"CREATE SCHEMA {name} AUTHORIZATION {name}")
        return f"postgresql+psycopg://{name}@127.0.0.1:{self.port}/postgres"

    def sql(self, user: str, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement outside any transaction; its rows."""
        import psycopg

        where = {"host": "127.0.0.1", "port": self.port, "user": user, "dbname": "postgres"}
        with psycopg.connect(**where, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _control(self, action: str, *flags: str) -> None:
        self._run("pg_ctl", action, f"--pgdata={self._data}", *flags)

    def _run(self, program: str, *arguments: str) -> None:
        folder = programs()
        assert folder is not None
        who = {"user": pwd.getpwnam(USER).pw_uid, "extra_groups": []} if os.getuid() == 0 else {}
        done = subprocess.run(
            [str(folder / program), *arguments],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server inherits it: a pipe would never end
            stderr=(self._folder / "errors").open("w"),
            **who,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, (self._folder / "errors").read_text()
