"""Errors of the service. `http/errors.py` maps them to HTTP statuses."""

from entracte.errors import EntracteError


class RequestRefused(EntracteError):
    """A request that this server does not accept.

    message: for the client. param: the field at fault. code: for programs.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class UnknownModel(RequestRefused):
    """The server does not have this model."""


class ImageTooLarge(RequestRefused):
    """An image exceeds the limit on bytes."""


class ServerError(EntracteError):
    """The server or worker cannot run."""


class Draining(EntracteError):
    """The server is stopping and accepts no more videos."""
