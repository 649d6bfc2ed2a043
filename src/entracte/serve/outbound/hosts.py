"""The hosts that an operator allows."""

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import SetupError
from .urls import PORTS, Url, read_authority


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """below: it stands for all hosts below the named one, and not for that one.

    port: None is the port of the URL's scheme.
    """

    host: str
    port: int | None
    below: bool

    def allows(self, url: Url) -> bool:
        if url.port != (self.port or PORTS[url.scheme]):
            return False
        return url.host.endswith(f".{self.host}") if self.below else url.host == self.host


def read_allowed_hosts(entries: Sequence[str]) -> tuple[AllowedHost, ...]:
    """Read `example.com`, `example.com:8443`, `*.example.com`, `192.0.2.7` and `[2001:db8::7]`.

    Raises SetupError.
    """
    return tuple(_read(entry) for entry in entries)


def _read(entry: str) -> AllowedHost:
    below = entry.startswith("*.")
    authority = read_authority(entry.removeprefix("*."))
    if authority is None:
        raise SetupError(
            f"{entry!r} is not a host; write example.com, example.com:8443, *.example.com, "
            "192.0.2.7 or [2001:db8::7]"
        )
    host, port = authority
    if below and (":" in host or host.rpartition(".")[2].isdigit()):
        raise SetupError(f"{entry!r}: there are no hosts below an address; name addresses in full")
    return AllowedHost(host, port, below)
