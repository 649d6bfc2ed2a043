"""Errors of requests to other machines. Messages name hosts, but no paths or queries, which may
hold secrets, and no addresses, which are private to a network.
"""

from entracte.errors import EntracteError


class OutboundRefused(EntracteError):
    """A URL or a header was refused; nothing was sent."""


class Unresolved(OutboundRefused):
    """The host's name does not resolve at the moment."""


class NotHttps(OutboundRefused):
    """The URL is http, and the operator has not allowed that."""


class NotPublic(OutboundRefused):
    """The host is in a network that the operator has not allowed."""


class OutboundFailed(EntracteError, OSError):
    """The other machine was unreachable, too slow, or sent an unusable response."""


class SetupError(EntracteError):
    """A setting of the operator's (hosts, networks, the webhook secret) is invalid."""
