"""`entracte keys`: API keys of the service."""

import argparse
import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .data import add_data_folder, open_data, serve_settings
from .parser import whole
from .tables import add_row, plain_table
from .terminal import say

if TYPE_CHECKING:
    from entracte.serve.jobs.job import Job
    from entracte.serve.keys import KeyStore

MOST_PRIORITY = 1_000_000


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "keys",
        description="The API keys of a service. They are kept as hashes: a key is shown once, when "
        "it is added. A running server applies changes at once.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make a key, and show it once")
    add.add_argument("name", metavar="NAME", help="a name for the key")
    add.add_argument(
        "--priority",
        type=whole(-MOST_PRIORITY, MOST_PRIORITY),
        default=0,
        metavar="N",
        help="its videos go ahead of those with lower N",
    )
    add.add_argument(
        "--operator",
        action="store_true",
        default=None,  # the first key of all is an operator's anyway
        help="it sees metrics, and what the engine does for others; the first key does",
    )
    revoke = actions.add_parser("revoke", help="revoke a key")
    revoke.add_argument("name", metavar="NAME", help="name or id of the key")
    revoke.add_argument(
        "--keep-jobs", action="store_true", help="still make the videos it has queued"
    )
    secret = "show the secret that webhooks are signed with"
    for action, do in (
        (add, _add),
        (actions.add_parser("list", help="all keys, without their secrets"), _list),
        (revoke, _revoke),
        (actions.add_parser("webhook-secret", help=secret), _webhook_secret),
    ):
        _add_common(action)
        action.set_defaults(run=do)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_data_folder(parser)
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _keys(options: argparse.Namespace, make: bool = False) -> "KeyStore":
    from entracte.serve.keys import KeyStore

    return KeyStore(open_data(serve_settings(options), make)[1])


def _add(options: argparse.Namespace) -> None:
    key, secret = _keys(options, make=True).add(options.name, options.priority, options.operator)
    if options.json:
        print(json.dumps({"id": key.id, "name": key.name, "key": secret}))
    else:
        print(
            f"{secret}\nIt is shown only now. Give it with every request: Authorization: Bearer …"
        )


def _list(options: argparse.Namespace) -> None:
    keys = _keys(options).list()
    if options.json:
        print(json.dumps({"keys": [asdict(key) for key in keys]}))
        return
    table = plain_table("name", "priority", "operator", "made", "id")
    for key in keys:
        made = datetime.fromtimestamp(key.created_at).strftime("%Y-%m-%d %H:%M")
        operator = "yes" if key.operator else ""
        add_row(table, key.name, key.priority, operator, made, key.id)
    Console().print(table if keys else "There are no keys; `entracte keys add NAME` makes one.")


def _revoke(options: argparse.Namespace) -> None:
    from entracte.serve.files import open_files
    from entracte.serve.jobs.outbox import Outbox
    from entracte.serve.jobs.store import JobStore
    from entracte.serve.keys import KeyStore

    settings = serve_settings(options)
    folder, database = open_data(settings)
    key = KeyStore(database).revoke(options.name)
    files = open_files(folder, settings.storage)
    stopped: list[Job] = []
    if not options.keep_jobs:
        stopped = JobStore(database, Outbox(database, settings.webhook_url)).cancel_all(key.id)
    for job in stopped:
        if job.ended:
            files.remove(job.id)
    if options.json:
        say(json.dumps({"revoked": key.id, "cancelled": [job.id for job in stopped]}))
    else:
        words = f"; cancelled {len(stopped)} of its videos" if stopped else ""
        say(f"revoked {key.name}{words}")


def _webhook_secret(options: argparse.Namespace) -> None:
    from entracte.serve.webhooks.dispatcher import webhook_secret

    folder, database = open_data(serve_settings(options), make=True)
    secret = webhook_secret(folder, database)
    print(json.dumps({"webhook_secret": secret}) if options.json else secret)
