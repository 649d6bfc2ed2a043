"""`entracte demo-model`: a tiny model in the published files."""

import argparse
import json
from pathlib import Path
from typing import Any, Literal

from .terminal import say


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "demo-model",
        description="Write a tiny LTX-2.3 model in exactly the published files. It was trained on "
        "a small world of coloured objects; its README says what it can show.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder; created if missing")
    parser.add_argument(
        "--random",
        action="store_true",
        help="fixed random weights instead of trained ones: coloured noise",
    )
    parser.add_argument(
        "--version",
        choices=("2.0", "2.3", "2.5"),
        default="2.3",
        help="of LTX; others than 2.3 have random weights (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the files as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command."""
    files = _write(options.folder, options.version, options.random)
    if options.json:
        print(json.dumps({"files": [{"path": str(p), "bytes": p.stat().st_size} for p in files]}))
        return
    for path in files:
        say(f"{path.stat().st_size:>12,}  {path}")


def _write(folder: Path, version: Literal["2.0", "2.3", "2.5"], random: bool) -> list[Path]:
    # What makes random weights imports torch, which takes longer than to unpack trained ones.
    if version != "2.3":
        from entracte.synthetic.demo_versions import write_demo_version

        return write_demo_version(folder, version)
    if random:
        from entracte.synthetic.demo import write_demo_model

        return write_demo_model(folder)
    from entracte.synthetic.trained import write_trained_model

    return write_trained_model(folder)
