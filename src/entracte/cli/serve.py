"""`entracte serve`: the engine as a service, and a web page."""

import argparse
import json
import shlex
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from entracte.config.reading import read_settings
from entracte.config.serve import ServeSettings
from entracte.errors import RequestError

from .flags import add_settings, given_settings
from .terminal import say

if TYPE_CHECKING:
    import socket

    from entracte.serve.service import Service

FIRST_KEY = "first key"


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "serve",
        description="Serve the model over HTTP, by the OpenAI Videos protocol, with a web page at "
        "the same address. Jobs and videos are kept in --data-folder and survive restarts. Clients "
        "need a key; a first one is made and shown if there is none (`entracte keys` has more).",
        epilog="Every flag but --json is also an environment variable (ENTRACTE_PORT) and a key of "
        "the table [serve] of the settings file; those of the model and of residency stand at its "
        "top. docs/how-to/run-a-service.md has examples.",
    )
    add_settings(parser, ServeSettings)
    parser.add_argument(
        "--json", action="store_true", help="print address and first key, or the error, as JSON"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Serve until told to stop."""
    settings = read_settings(ServeSettings, given_settings(ServeSettings, options))

    from entracte.serve.logs import process_log
    from entracte.serve.server import bind, open_service, run

    with process_log(settings.log_format) as (log, stream):
        service = open_service(settings, log)
        as_json = options.json or settings.log_format == "json"  # all that a machine reads is
        out = sys.stdout if options.json else stream
        with bind(settings) as listener:
            address = _address(listener)
            run(service, listener, lambda: _greet(service, address, out, as_json))


def _address(listener: "socket.socket") -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


def _greet(service: "Service", address: str, out: TextIO, as_json: bool) -> None:
    """Print where the service is, and make a first key if there is none."""
    secret = None
    if service.settings.auth == "keys" and not service.keys.list():
        with suppress(RequestError):  # another server of the same database makes it
            _, secret = service.keys.add(FIRST_KEY)
    if as_json:
        print(json.dumps({"address": address, "key": secret}), file=out, flush=True)
        return
    # To the terminal, not to the log: a key in the log would open the service to its readers.
    say(f"Entracte is at {address}", out)
    if secret is not None:
        say(f"The first API key, shown once: {secret}", out)
        say(f"Open the page with it: {address}#key={secret}", out)
    elif service.settings.auth == "keys":
        folder = shlex.quote(str(service.folder.root))
        say(
            f"Sign in with an API key; `entracte keys add NAME --data-folder {folder}` makes one",
            out,
        )
    out.flush()
