"""`entracte report`: a page that shows where the time and memory of runs went."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.errors import MediaError

from .overwrite import require_absent
from .terminal import say

if TYPE_CHECKING:
    from entracte.trace.dump import Dump


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "report",
        description="Write one page of HTML from the dumps that `entracte generate "
        "--perf-dump-path` made: the stages of all runs side by side, and of each run its memory "
        "over time and where every block's weights were. The page needs no network.",
    )
    parser.add_argument("dumps", metavar="DUMP", nargs="+", type=Path, help="performance dumps")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="the page (default: report.html)"
    )
    parser.add_argument(
        "--map-svg",
        metavar="FILE",
        type=Path,
        help="write only the residency map of the first dump, as a picture for documents",
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command. Everything is read and checked before anything is written."""
    from entracte.files import require_writable, write_atomically
    from entracte.trace.read_dump import read_dump

    if options.map_svg is not None and options.output is not None:
        raise MediaError("give --output or --map-svg, not both: --map-svg writes only the map")
    dumps = [read_dump(path) for path in options.dumps]
    labels = label_dumps(options.dumps, dumps)
    runs = [each for run in zip(labels, dumps, strict=True) for each in ranks_of(*run)]
    output = options.map_svg or options.output or Path("report.html")
    _keep_the_dumps(output, options.dumps)
    require_writable(output)
    if options.map_svg is not None:
        written = _map(options.dumps[0], labels[0], dumps[0])
    else:
        from entracte.report.page import report_page

        written = report_page(runs)
    require_absent(output, options.force, may_ask=not options.json)
    with write_atomically(output) as part:
        part.write_text(written, encoding="utf-8")
    if options.json:
        size = output.stat().st_size
        print(
            json.dumps({"path": str(output), "bytes": size, "labels": [label for label, _ in runs]})
        )
    else:
        say(f"wrote {output}")


def label_dumps(paths: list[Path], dumps: list["Dump"]) -> list[str]:
    """A name for each dump: its file's and the mode; repeated names get a number."""
    labels: list[str] = []
    for path, dump in zip(paths, dumps, strict=True):
        label = f"{path.stem} ({dump.mode})" if dump.mode else path.stem
        name, number = label, 1
        while name in labels:
            number += 1
            name = f"{label} #{number}"
        labels.append(name)
    return labels


def ranks_of(label: str, dump: "Dump") -> list[tuple[str, "Dump"]]:
    """A run, or that of each rank of a group beside the others."""
    if not dump.ranks:
        return [(label, dump)]
    return [(f"{label}, rank {number}", each) for number, each in enumerate(dump.of_all_ranks)]


def _map(path: Path, label: str, dump: "Dump") -> str:
    from entracte.report.residency_map import residency_map
    from entracte.trace.read_dump import DumpError

    drawn = None
    if dump.recording is not None:
        title = f"Where every block's weights were: {label}"
        drawn = residency_map(dump.recording, dump.total_duration_ms, "map", title, alone=True)
    if drawn is None:
        raise DumpError(
            f"{path} has no residency map: another engine or an older version made it, or its "
            "model has no component in blocks"
        )
    return f"{drawn}\n"


def _keep_the_dumps(output: Path, dumps: list[Path]) -> None:
    if output.exists() and any(output.samefile(dump) for dump in dumps):
        raise MediaError(f"{output} is one of the dumps; name another file for the report")
