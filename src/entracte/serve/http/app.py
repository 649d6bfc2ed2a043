"""The application: routes and middleware."""

from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.routing import Route

from entracte.serve.service import Service
from entracte.version import __version__

from . import content, create, engine, events, operations, page, session, videos
from .access_log import Mistakes, Observe
from .auth import Auth
from .cors import EXPOSED, Cors
from .credentials import Credentials
from .errors import add_error_handlers
from .limits import BodyLimit
from .middleware import Head, SecurityHeaders
from .openapi import corrected
from .turns import Pools

DESCRIPTION = """
Video with sound from text and images, by the OpenAI Videos protocol and what goes beyond it.

Give an API key with every request: `Authorization: Bearer ek-…`. Errors have one form everywhere:
`{"error": {"message", "type", "param", "code"}}`.
"""

# Names that only this machine itself can use.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class App(FastAPI):
    """FastAPI with a corrected OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        return corrected(super().openapi())


def make_app(service: Service) -> FastAPI:
    """The application of a service; the caller starts and stops the service."""
    credentials = Credentials(service.keys, service.sessions)
    app = App(
        title="Entracte",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # they would load files from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # redirects would use the client's Host header
        middleware=_layers(service, credentials),
    )
    app.state.service = service
    app.state.credentials = credentials
    app.state.pools = Pools()
    routes = [route for route in app.routes if isinstance(route, Route)]
    for part in (create, events, videos, content, engine, operations, session, page):
        app.include_router(part.router)
        routes += [route for route in part.router.routes if isinstance(route, Route)]
    add_error_handlers(app, routes)
    return app


def _layers(service: Service, credentials: Credentials) -> list[Middleware]:
    """Middleware, outermost first: no body is read before its sender is authenticated."""
    settings = service.settings
    origins = frozenset(settings.cors_origin)
    layers = [
        Middleware(Observe, metrics=service.metrics, log=service.log),
        Middleware(SecurityHeaders),
    ]
    if origins:
        layers.append(
            Middleware(
                Cors,
                allow_origins=sorted(origins),
                allow_methods=["GET", "HEAD", "POST", "DELETE"],
                allow_headers=["*"],  # clients add some of their own, such as x-stainless-lang
                expose_headers=EXPOSED,
            )
        )
    return [
        *layers,
        Middleware(Mistakes, log=service.log),
        Middleware(
            Auth,
            credentials=credentials if settings.auth == "keys" else None,
            # Without keys, only this check stops DNS rebinding.
            hosts=LOOPBACK if settings.auth == "off" else None,
            origins=origins,
        ),
        Middleware(BodyLimit, max_bytes=settings.max_body_bytes),
        Middleware(Head),
    ]
