"""`entracte worker`: makes the videos of servers that share a database with it."""

import argparse
from typing import Any

from entracte.config.reading import read_settings
from entracte.config.serve import ServeSettings

from .flags import add_settings, flags_of, given_settings

# What concerns clients is for servers. The rest of the settings is the same for both, so that one
# file or environment does for all.
SERVERS = {
    "host",
    "port",
    "auth",
    "workers",
    "model_name",
    "keep_size",
    *(name for name, flag in flags_of(ServeSettings).items() if flag.group == "limits"),
    *(name for name, flag in flags_of(ServeSettings).items() if flag.group == "network"),
} - {"max_running_per_key", "webhook_url"}


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "worker",
        help="work for servers elsewhere that share a database",
        description="Make the videos that servers queue in --database (PostgreSQL), one at a time "
        "on each of --devices. Give it the model, and the --database and --storage of `entracte "
        "serve --workers elsewhere`. SIGTERM lets running videos finish.",
        epilog="It reads the same variables and the same table [serve] of the settings file as "
        "`entracte serve`. docs/fleet.md has examples.",
    )
    add_settings(parser, ServeSettings, SERVERS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Work until told to stop."""
    settings = read_settings(ServeSettings, given_settings(ServeSettings, options))

    from entracte.serve.logs import process_log
    from entracte.serve.node_process import run_node
    from entracte.serve.server import open_node

    with process_log(settings.log_format) as (log, _):
        run_node(open_node(settings, log))
