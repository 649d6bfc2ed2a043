"""API keys: created here, shown once, stored as hashes."""

import hashlib
import hmac
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, RowMapping, delete, insert, select
from sqlalchemy.exc import IntegrityError

from entracte.errors import RequestError

from .jobs.database import read_rows, writing
from .jobs.failures import DatabaseError
from .jobs.tables import keys

PREFIX = "ek-"

# Keys are needed at every request, but read from the database only this often.
FRESH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret.

    priority: of its jobs; higher ones go first. operator: whether it may see metrics and what the
    engine does for other keys.
    """

    id: str
    name: str
    priority: int
    created_at: float
    operator: bool = False


# The key of every client if no keys are required.
LOCAL = Key("local", "local", 0, 0.0, operator=True)


class KeyStore:
    """The keys of a database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: list[tuple[bytes, Key]] = []
        self._read_at = -FRESH_SECONDS

    def add(self, name: str, priority: int = 0, operator: bool | None = None) -> tuple[Key, str]:
        """Create a key; returns it with its secret, which is not stored. Raises RequestError for a
        name in use.

        operator: None: only the very first key becomes an operator's.
        """
        if not name.strip() or not name.isprintable() or len(name) > 100:
            raise RequestError("a key's name has 1 to 100 printable characters")
        # 256 random bits cannot be guessed, so a fast hash is enough.
        secret = PREFIX + secrets.token_urlsafe(32)
        if operator is None:
            operator = not self.list()
        key = Key(f"key_{uuid.uuid4().hex}", name, priority, time.time(), operator)
        values = {
            "id": key.id,
            "name": name,
            "hash": hashed(secret),
            "priority": priority,
            "operator": operator,
            "created_at": key.created_at,
        }
        try:
            with writing(self._engine) as session:
                session.execute(insert(keys).values(values))
            self._read_at = -FRESH_SECONDS
        except IntegrityError:
            raise RequestError(f"there is a key named {name!r} already; revoke it first") from None
        return key, secret

    def revoke(self, name_or_id: str) -> Key:
        """Revoke a key; raises RequestError if it does not exist."""
        for key in self.list():
            if name_or_id in (key.name, key.id):
                with writing(self._engine) as session:
                    session.execute(delete(keys).where(keys.c.id == key.id))
                self._read_at = -FRESH_SECONDS
                return key
        raise RequestError(f"there is no key named {name_or_id!r}")

    def list(self) -> list[Key]:
        """All keys, the oldest first."""
        rows = read_rows(self._engine, select(keys).order_by(keys.c.created_at))
        return list(map(_as_key, rows))

    def find(self, secret: str) -> Key | None:
        """The key of a secret. All are compared, in constant time.

        A change by another process takes effect within FRESH_SECONDS.
        """
        wanted, found = hashed(secret), None
        for known, key in self._all():
            if hmac.compare_digest(known, wanted):
                found = key
        return found

    def get(self, key_id: str) -> Key | None:
        """The key of an id; as fresh as `find`."""
        return next((key for _, key in self._all() if key.id == key_id), None)

    def holds(self, key: Key) -> bool:
        """Whether a key found earlier is still valid; as fresh as `find`."""
        return key == LOCAL or self.get(key.id) is not None

    @property
    def is_fresh(self) -> bool:
        """Whether `find` answers without reading the database."""
        return time.monotonic() - self._read_at < FRESH_SECONDS

    def _all(self) -> Sequence[tuple[bytes, Key]]:
        if not self.is_fresh:
            try:
                rows = read_rows(self._engine, select(keys))
            except DatabaseError:
                if not self._known:
                    raise
                return self._known  # nothing can be revoked meanwhile; /health says why
            self._known = [(row["hash"], _as_key(row)) for row in rows]
            self._read_at = time.monotonic()
        return self._known


def _as_key(row: RowMapping) -> Key:
    return Key(row["id"], row["name"], row["priority"], row["created_at"], row["operator"])


def hashed(secret: str) -> bytes:
    """The hash of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
