"""Sessions of browsers: each has its own secret, never the key itself."""

import secrets
import time
from collections.abc import Callable

from sqlalchemy import Engine, delete, insert, select

from .jobs.database import read_rows, writing
from .jobs.tables import sessions
from .keys import FRESH_SECONDS, Key, KeyStore, hashed

SESSION_SECONDS = 30 * 24 * 3600

# Per key; beyond that, the oldest ends.
SESSIONS_OF_A_KEY = 100


class SessionStore:
    """Sessions in the database: they survive restarts, and end with their key."""

    def __init__(
        self, engine: Engine, keys: KeyStore, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._clock = clock
        self._known: dict[bytes, tuple[str, float]] = {}
        self._read_at = -FRESH_SECONDS

    def begin(self, key: Key) -> str:
        """Start a session; returns its secret, which is not stored."""
        secret = secrets.token_urlsafe(32)
        now = self._clock()
        of_key = sessions.c.key_id == key.id
        newest = select(sessions.c.hash).where(of_key).order_by(sessions.c.expires_at.desc())
        kept = newest.limit(SESSIONS_OF_A_KEY - 1)
        with writing(self._engine) as session:
            session.execute(delete(sessions).where(sessions.c.expires_at <= now))
            session.execute(delete(sessions).where(of_key, sessions.c.hash.not_in(kept)))
            row = {"hash": hashed(secret), "key_id": key.id, "expires_at": now + SESSION_SECONDS}
            session.execute(insert(sessions).values(row))
        self._read_at = -FRESH_SECONDS
        return secret

    def end(self, secret: str) -> None:
        """End a session, if there is one."""
        with writing(self._engine) as session:
            session.execute(delete(sessions).where(sessions.c.hash == hashed(secret)))
        self._read_at = -FRESH_SECONDS

    def find(self, secret: str) -> Key | None:
        """The key of a session. As fresh as `KeyStore.find`."""
        if not self._is_read:
            rows = read_rows(self._engine, select(sessions))
            self._known = {row["hash"]: (row["key_id"], row["expires_at"]) for row in rows}
            self._read_at = time.monotonic()
        key_id, expires_at = self._known.get(hashed(secret), ("", 0.0))
        return self._keys.get(key_id) if expires_at > self._clock() else None

    @property
    def is_fresh(self) -> bool:
        """Whether `find` answers without reading the database."""
        return self._is_read and self._keys.is_fresh

    @property
    def _is_read(self) -> bool:
        return time.monotonic() - self._read_at < FRESH_SECONDS
