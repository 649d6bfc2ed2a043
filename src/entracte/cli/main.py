"""The `entracte` command."""

import json
import os
import signal
import sys
from collections.abc import MutableMapping, Sequence
from types import FrameType

from entracte.cli.commands import main_parser
from entracte.cli.terminal import say
from entracte.errors import EntracteError

# Where torch looks for its allocator's settings, the old name and the new one.
ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")

# Exit codes: for errors that the user can fix, and for interruptions (as in shells).
EXIT_REFUSED = 2
EXIT_STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with its code."""
    # A request to terminate ends as cleanly as Ctrl-C does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    set_allocator(os.environ)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def set_allocator(environment: MutableMapping[str, str]) -> None:
    """Have torch's memory on a GPU grow in place, unless the user has said something of it.

    Otherwise up to 9 GB of an 80 GB card end as gaps between allocations, which no plan can count.
    Read when torch first allocates, in this process and in those that it starts.
    """
    if not any(name in environment for name in ALLOCATOR):
        environment[ALLOCATOR[-1]] = "expandable_segments:True"


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    try:
        options = main_parser(arguments).parse_args(arguments)
        code: int | None = options.run(options)
    except EntracteError as error:
        _report(error, as_json="--json" in arguments)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print("\nentracte: stopped; no partial file was left", file=sys.stderr)
        return EXIT_STOPPED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone
        return 1
    return code or 0


def _report(error: EntracteError, as_json: bool) -> None:
    from entracte.config.wording import worded

    if as_json:
        print(json.dumps({"error": {"type": type(error).__name__, "message": worded(error)}}))
    else:
        for line in worded(error).splitlines():
            say(f"entracte: {line}", sys.stderr)


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Stop the command, ignoring further signals, which would interrupt the clean-up."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
