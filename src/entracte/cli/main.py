"""The `entracte` command."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence

from entracte import __version__
from entracte.cli import (
    bench,
    demo_model,
    doctor,
    generate,
    inspect,
    jobs,
    keys,
    plan,
    profile,
    report,
    serve,
)
from entracte.errors import EntracteError

COMMANDS = (
    generate,
    serve,
    keys,
    jobs,
    plan,
    bench,
    profile,
    report,
    inspect,
    doctor,
    demo_model,
)

# Exit codes: what the user can mend, and what the user stopped (as shells have it).
EXIT_REFUSED = 2
EXIT_STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="entracte", description="Two-stage video with sound from LTX-2.3."
    )
    parser.add_argument("--version", action="version", version=f"entracte {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    # A request to terminate ends as cleanly as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options.run(options)
    except EntracteError as error:
        _report(error, options.json)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print("\nentracte: stopped; no partial file was left", file=sys.stderr)
        return EXIT_STOPPED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; nothing more can be said
        return 1
    return 0


def _report(error: EntracteError, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": {"type": type(error).__name__, "message": str(error)}}))
    else:
        for line in str(error).splitlines():
            print(f"entracte: {line}", file=sys.stderr)
