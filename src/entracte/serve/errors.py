"""What the service refuses, and why. `http/errors.py` says which status each has."""

from entracte.errors import EntracteError


class RequestRefused(EntracteError):
    """A client's request that this server does not carry out.

    message: for the client. param: the field at fault. code: for programs.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class UnknownModel(RequestRefused):
    """The model is not one that this server has."""


class ImageTooLarge(RequestRefused):
    """An image has more bytes than the server takes."""


class Draining(EntracteError):
    """The server is stopping, and takes no more videos."""
