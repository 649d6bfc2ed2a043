"""The service's data folder, for commands that look into it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from entracte.settings.base import read_settings
from entracte.settings.serve import ServeSettings

if TYPE_CHECKING:
    from entracte.serve.data_folder import DataFolder


def add_data_folder(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names it."""
    parser.add_argument(
        "--data-folder",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="the service's (default: as in `entracte serve`)",
    )


def serve_settings(options: argparse.Namespace) -> ServeSettings:
    """The service's, by this flag, the environment and the file; raises RequestError."""
    given = {name: value for name, value in vars(options).items() if name == "data_folder"}
    return read_settings(ServeSettings, given)


def data_folder(options: argparse.Namespace) -> "DataFolder":
    """The folder that flag, environment, file or default name; raises EntracteError."""
    from entracte.serve.data_folder import DataFolder

    return DataFolder(serve_settings(options).data_folder)
