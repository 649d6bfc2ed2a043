"""The application: routes, and the layers around them."""

from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from entracte import __version__
from entracte.serve.service import Service

from . import content, create, engine, events, operations, page, session, videos
from .auth import Auth
from .documented import corrected
from .errors import add_error_handlers
from .headers import SecurityHeaders
from .limits import BodyLimit
from .observe import Observe

DESCRIPTION = """
Video with sound from text and images, by the OpenAI Videos protocol and what goes beyond it.

Give an API key with every request: `Authorization: Bearer ek-…`. Errors have one form everywhere:
`{"error": {"message", "type", "param", "code"}}`.
"""

# Names of this machine that only it can be called by.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class App(FastAPI):
    """Documented as it is."""

    def openapi(self) -> dict[str, Any]:
        return corrected(super().openapi())


def make_app(service: Service) -> FastAPI:
    """The application of a service; whoever makes it starts and stops the service."""
    app = App(
        title="Entracte",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # they would be fetched from elsewhere
        redoc_url=None,
        middleware=_layers(service),
    )
    app.state.service = service
    app.state.intake = CapacityLimiter(create.AT_ONCE)
    add_error_handlers(app)
    for part in (create, events, videos, content, engine, operations, session, page):
        app.include_router(part.router)
    return app


def _layers(service: Service) -> list[Middleware]:
    """From the outside in: nobody's body is read before it is known who they are."""
    settings = service.settings
    origins = frozenset(settings.cors_origin)
    layers = [
        Middleware(Observe, metrics=service.metrics, log=service.log),
        Middleware(SecurityHeaders),
    ]
    if origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=sorted(origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["authorization", "content-type", "idempotency-key", "last-event-id"],
                expose_headers=["openai-poll-after-ms", "retry-after"],
            )
        )
    layers.append(
        Middleware(
            Auth,
            find=service.keys.find if settings.auth == "keys" else None,
            # Without keys, a name that another site's page gave this machine would open it.
            hosts=LOOPBACK if settings.auth == "off" else None,
            origins=origins,
        )
    )
    layers.append(Middleware(BodyLimit, max_bytes=settings.max_body_bytes))
    return layers
