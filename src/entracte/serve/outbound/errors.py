"""What goes wrong with requests to other machines. Messages name hosts, never paths or queries:
those may hold secrets. Nor do they say at which address a name is: that is for its network to know.
"""

from entracte.errors import EntracteError


class OutboundRefused(EntracteError):
    """A URL or a header that we do not send; nothing was sent."""


class Unresolved(OutboundRefused):
    """The host's name has no address at the moment; it may have one later."""


class NotHttps(OutboundRefused):
    """The URL is http, which the operator has not allowed."""


class NotPublic(OutboundRefused):
    """The host is in a network that the operator has not allowed."""


class OutboundFailed(EntracteError, OSError):
    """The other machine was not reached, took too long, or answered with what we do not take."""


class SetupError(EntracteError):
    """What the operator set (hosts, networks, the webhook secret) cannot be read."""
