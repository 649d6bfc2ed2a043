"""Credentials of a client: a key in a header, or the cookie of a signed-in page."""

from urllib.parse import SplitResult, urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.requests import HTTPConnection

from entracte.serve.keys import Key, KeyStore
from entracte.serve.sessions import SessionStore

COOKIE = "entracte"


class Credentials:
    """Finds the key of a request; uses a thread only if the database must be read."""

    def __init__(self, keys: KeyStore, sessions: SessionStore) -> None:
        self._keys = keys
        self._sessions = sessions
        self._thread = CapacityLimiter(1)  # its own, so that nothing else can occupy it

    async def key_of(self, connection: HTTPConnection) -> Key | None:
        """The key in the header, else that of the page's session; None if unknown."""
        secret = bearer_of(connection)
        if secret is not None:
            return await self.find(self._keys, secret)
        cookie = connection.cookies.get(cookie_name(connection))
        return None if cookie is None else await self.find(self._sessions, cookie)

    async def find(self, where: KeyStore | SessionStore, secret: str) -> Key | None:
        if where.is_fresh:
            return where.find(secret)
        return await to_thread.run_sync(where.find, secret, limiter=self._thread)


def bearer_of(connection: HTTPConnection) -> str | None:
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


def cookie_name(connection: HTTPConnection) -> str:
    """The name of the page's cookie, with the port, as browsers send cookies to all ports of a
    host.

    Under TLS it has the prefix that browsers accept only from this very host.
    """
    secure = is_secure(connection)
    try:
        port = split(f"//{connection.headers.get('host', '')}").port
    except ValueError:
        port = None
    name = f"{COOKIE}-{port or (443 if secure else 80)}"
    return f"__Host-{name}" if secure else name


def is_secure(connection: HTTPConnection) -> bool:
    return connection.url.scheme == "https"


def split(url: str) -> SplitResult:
    """A URL's parts; empty ones if it is not a URL."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
