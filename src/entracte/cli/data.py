"""The service's data folder, for commands that use it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from entracte.config.reading import read_settings
from entracte.config.serve import ServeSettings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from entracte.serve.data_folder import DataFolder


def add_data_folder(parser: argparse.ArgumentParser) -> None:
    """Add the flag for it."""
    parser.add_argument(
        "--data-folder",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="data folder of the service (default: as for `entracte serve`)",
    )


def serve_settings(options: argparse.Namespace) -> ServeSettings:
    """The service's settings from this flag, the environment and the file; raises RequestError."""
    given = {name: value for name, value in vars(options).items() if name == "data_folder"}
    return read_settings(ServeSettings, given)


def open_data(settings: ServeSettings, make: bool = False) -> "tuple[DataFolder, Engine]":
    """Open the data folder and its database. make: whether they may be created.

    Raises EntracteError.
    """
    from entracte.serve.data_folder import DataFolder
    from entracte.serve.jobs.database import open_database

    folder = DataFolder(settings.data_folder)
    if make:
        folder.prepare()
    else:
        folder.require()
    return folder, open_database(folder.database, make)
