"""`entracte inspect`: the contents of model files, from their headers alone."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.errors import CheckpointError, MediaError
from entracte.imports import quick_imports

from .tables import add_row, plain_table
from .terminal import say

if TYPE_CHECKING:
    from entracte.checkpoints.description import Description


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "inspect",
        description="Say what model files or folders hold: version, components, parameters and "
        "bytes, a LoRA's rank and coverage, from their headers; of a video that `entracte` made, "
        "its prompt and settings.",
    )
    parser.add_argument("paths", metavar="FILE", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command on all paths, even after one fails. Returns the exit code."""
    if len(options.paths) == 1:
        described: list[Description | _Video | _Refused] = [*_describe(options.paths[0])]
    else:
        described = []
        for path in options.paths:
            try:
                described += _describe(path)
            except (CheckpointError, MediaError) as error:
                described.append(_Refused(path, error))
    if options.json:
        print(json.dumps([each.as_json() for each in described], indent=1))
    else:
        for number, each in enumerate(described):
            if number:
                print()
            if isinstance(each, _Refused):
                say(f"{each.path}: refused\n  {each.error}")
            elif isinstance(each, _Video):
                say(f"{each.path}: a video")
                for name, value in each.settings.items():
                    say(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}")
            else:
                _print(each)
    return 2 if any(isinstance(each, _Refused) for each in described) else 0


def _describe(path: Path) -> "Sequence[Description | _Video]":
    if path.suffix.lower() == ".mp4":
        from entracte.media.tags import read_settings_of

        return [_Video(path, read_settings_of(path))]
    with quick_imports():
        from entracte.checkpoints.description import describe_path

    return describe_path(path)


@dataclass(frozen=True, slots=True)
class _Video:
    """A video, and what it says it was made with."""

    path: Path
    settings: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "kind": "video", "settings": dict(self.settings)}


@dataclass(frozen=True, slots=True)
class _Refused:
    """A path that cannot be described."""

    path: Path
    error: CheckpointError | MediaError

    def as_json(self) -> dict[str, Any]:
        error = {"type": type(self.error).__name__, "message": str(self.error)}
        return {"path": str(self.path), "error": error}


def _print(described: "Description") -> None:
    from rich.console import Console

    version = f", LTX-{described.version}" if described.version else ""
    say(f"{described.path}: {described.kind}{version}")
    for key, value in described.facts.items():
        say(f"  {key}: {value}")
    table = plain_table()
    for column in ("component", "tensors", "parameters", "bytes", "dtypes"):
        table.add_column(column, justify="left" if column in ("component", "dtypes") else "right")
    for part in described.parts:
        add_row(
            table,
            f"  {part.name}",
            f"{part.tensors:,}",
            f"{part.parameters:,}",
            f"{part.nbytes:,}",
            ", ".join(part.dtypes),
        )
    Console().print(table)
