"""Authentication: every route needs a key, except those named here."""

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from entracte.serve.jobs.failures import DatabaseError
from entracte.serve.keys import LOCAL

from .credentials import Credentials, bearer_of, cookie_name, split
from .errors import ApiError, error_response, storage_failed

# Open without a key: liveness, the page, and its sign-in.
OPEN = frozenset({"/", "/liveness", "/session"})
OPEN_BELOW = "/page/"

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Auth:
    """Refuses requests without a key, and those from other sites' pages.

    credentials: None: no keys are needed. hosts: the names by which the server may be addressed,
    None: any. origins: other sites whose pages may send requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        credentials: Credentials | None,
        hosts: frozenset[str] | None,
        origins: frozenset[str],
    ) -> None:
        self._app = app
        self._credentials = credentials
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._admit(scope)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        except DatabaseError:  # of the keys; the application's error handlers are further in
            await error_response(storage_failed())(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        connection = HTTPConnection(scope)
        host = connection.headers.get("host", "")
        if self._hosts is not None and split(f"//{host}").hostname not in self._hosts:
            # A page elsewhere may have pointed its own name at this machine (DNS rebinding).
            raise ApiError(403, "This server does not answer to that name.", "wrong_host")
        if scope["method"] not in SAFE:
            self._require_own_page(connection, host)
        path: str = scope["path"]
        if self._credentials is None:
            scope.setdefault("state", {})["key"] = LOCAL
            return
        if path in OPEN or path.startswith(OPEN_BELOW):
            return
        key = await self._credentials.key_of(connection)
        if key is None:
            words, code = "Give an API key: Authorization: Bearer ek-…", "missing_api_key"
            if bearer_of(connection) is not None:
                words, code = "This API key is not known.", "invalid_api_key"
            elif cookie_name(connection) in connection.cookies:
                words, code = "You are no longer signed in.", "invalid_api_key"
            raise ApiError(401, words, code, headers={"WWW-Authenticate": "Bearer"})
        scope.setdefault("state", {})["key"] = key

    def _require_own_page(self, connection: HTTPConnection, host: str) -> None:
        """Browsers send cookies with requests of any page, but name the page's origin."""
        origin = connection.headers.get("origin")
        if origin is None or origin in self._origins:
            return
        netloc = split(origin).netloc
        if not netloc or netloc != host:
            raise ApiError(403, "Pages of other sites may not request this.", "wrong_origin")
