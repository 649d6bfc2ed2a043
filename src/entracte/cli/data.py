"""The service's data folder, for commands that use it."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from entracte.config.reading import read_settings
from entracte.config.serve import ServeSettings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from entracte.serve.data_folder import DataFolder


FLAGS = ("data_folder", "database", "storage")


def add_data_folder(parser: argparse.ArgumentParser) -> None:
    """Add the flags for it and for its database."""
    parser.add_argument(
        "--data-folder",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="data folder of the service (default: as for `entracte serve`)",
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        default=argparse.SUPPRESS,
        help="its database (default: as for `entracte serve`)",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        default=argparse.SUPPRESS,
        help="its store of videos (default: as for `entracte serve`)",
    )


def serve_settings(options: argparse.Namespace) -> ServeSettings:
    """The service's settings from flags, environment and file; raises RequestError."""
    given = {name: each for name, each in vars(options).items() if name in FLAGS}
    return read_settings(ServeSettings, given)


def open_data(settings: ServeSettings, make: bool = False) -> "tuple[DataFolder, Engine]":
    """Open the data folder and its database. make: whether they may be created.

    Raises EntracteError.
    """
    from entracte.serve.data_folder import DataFolder
    from entracte.serve.jobs.database import open_database

    folder = DataFolder(settings.data_folder, settings.database)
    if make:
        folder.prepare()
    else:
        folder.require()
    return folder, open_database(folder.place, make)
