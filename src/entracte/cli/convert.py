"""`entracte convert`: model files made from others."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.imports import quick_imports
from entracte.units import size

from .terminal import say

if TYPE_CHECKING:
    from entracte.checkpoints.convert import Conversion

# What can be written; `checkpoints.convert` has the same, and takes seconds to import.
FORMATS = ("bf16", "fp8", "fp8-plain", "nvfp4", "mxfp8", "int8", "int8-convrot")


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "convert",
        description="Quantise or expand a model's files, merge LoRAs into them, split or join "
        "them: tensor by tensor, in memory of the largest. Everything is checked before; "
        "nothing is ever overwritten.",
    )
    parser.add_argument(
        "inputs",
        metavar="IN",
        nargs="+",
        type=Path,
        help="the files of one checkpoint, which become one, or their folder; or a text encoder's "
        "folder",
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        type=Path,
        help="the new file; with --split, and for a text encoder, a folder",
    )
    parser.add_argument(
        "--to",
        metavar="FORMAT",
        choices=FORMATS,
        help=f"what the linears of blocks are stored in: {', '.join(FORMATS)}; those of the first "
        "two and last two blocks in bf16, as in the published files (default: all as they are)",
    )
    parser.add_argument(
        "--lora",
        metavar="FILE [STRENGTH]",
        nargs="+",
        action="append",
        default=[],
        help="merge a LoRA in, at strength 1 if none is given; may be repeated",
    )
    parser.add_argument(
        "--lora-partial", action="store_true", help="leave out what of a LoRA cannot be applied"
    )
    parser.add_argument(
        "--split",
        action="store_true",
        help="write a folder with a file each for transformer, text projection, video VAE and "
        "audio VAE",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, and say what would be written"
    )
    parser.add_argument("--json", action="store_true", help="print the files as JSON")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    loras = [_lora(words, options.parser) for words in options.lora]
    with quick_imports():
        from entracte.checkpoints.convert import check_room, plan_conversion, write_conversion

    conversion = plan_conversion(
        options.inputs, options.out, options.to, loras, options.lora_partial, options.split
    )
    check_room(conversion)
    for notice in conversion.notices:
        say(f"warning: {notice}", sys.stderr)
    if not options.dry_run:
        with _progress(conversion.nbytes) as written:
            write_conversion(conversion, written)
    _print(conversion, options.json)


def _lora(words: list[str], parser: argparse.ArgumentParser) -> tuple[Path, float]:
    """A LoRA and its strength, as they are given."""
    try:
        path, strength = words if len(words) > 1 else (*words, "1")
        return Path(path), float(strength)
    except ValueError:
        parser.error("argument --lora: must be FILE or FILE STRENGTH, with a number for STRENGTH")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show bytes as they are written: a bar on a terminal, else a line for every tenth."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = BarColumn(), DownloadColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda nbytes: bar.update(task, advance=nbytes)
        return
    done = 0

    def written(nbytes: int) -> None:
        nonlocal done
        tenth, done = 10 * done // max(1, total), done + nbytes
        if 10 * done // max(1, total) > tenth:
            say(f"{size(done)} of {size(total)}", sys.stderr)

    yield written


def _print(conversion: "Conversion", as_json: bool) -> None:
    found = []
    for new in conversion.files:
        path = conversion.out / new.name if conversion.to_folder else conversion.out
        formats = sorted({each.name for each in new.formats.values() if each is not None})
        found.append({"path": str(path), "bytes": new.nbytes, "formats": formats})
        if not as_json:
            quantised = sum(each is not None for each in new.formats.values())
            words = f", {quantised:,} of them {' and '.join(formats)}" if formats else ""
            say(f"{size(new.nbytes):>10}  {path}: {len(new.formats):,} tensors{words}")
    if as_json:
        print(json.dumps({"files": found}, indent=1))
