"""`entracte inspect`: what model files hold, from their headers alone."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import add_row, plain_table, say

if TYPE_CHECKING:
    from entracte.checkpoints.description import Description


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "inspect",
        help="say what model files hold, without reading a weight",
        description="Say what model files or folders hold: version, components, parameters and "
        "bytes, a LoRA's rank and coverage. Only headers are read.",
    )
    parser.add_argument("paths", metavar="FILE", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command."""
    from entracte.checkpoints.description import describe_path

    described = [each for path in options.paths for each in describe_path(path)]
    if options.json:
        print(json.dumps([each.as_json() for each in described], indent=1))
        return
    for number, each in enumerate(described):
        if number:
            print()
        _print(each)


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
