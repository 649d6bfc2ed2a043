"""Which commands there are. Each is a module of this package, imported only when it is run."""

import argparse
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType, ModuleType

from entracte.version import __version__

from .parser import Parser, UsageError

GROUPS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "Make videos": {
            "generate": "make a video with sound",
            "demo-model": "write a tiny model, to try everything without a download",
        },
        "Serve": {
            "serve": "make videos for others: HTTP with the OpenAI Videos protocol, and a web page",
            "worker": "work for servers elsewhere that share a database",
            "keys": "add, list and revoke the service's API keys",
            "jobs": "list, show, cancel and prune the service's videos",
        },
        "Understand": {
            "doctor": "measure this machine, and report what will work on it",
            "plan": "predict time and memory in every mode, and say which is best",
            "inspect": "say what files hold: a model's parts, or a video's prompt and settings",
        },
        "Prepare": {
            "convert": "quantise or expand a model's files, merge LoRAs in, split or join them",
        },
        "Measure": {
            "bench": "measure every mode, stage by stage, beside published figures and diffusers",
            "profile": "make one video with a profiler, and list what costs most in every stage",
            "report": "show where the time and memory of runs went, as a page for a browser",
        },
    }
)

COMMANDS: Mapping[str, str] = {
    name: summary for group in GROUPS.values() for name, summary in group.items()
}

EXAMPLES = """\
Examples:
  entracte generate "A lighthouse at dusk, waves, a foghorn" --model DIR
  entracte plan --gpu rtx-4090 --seconds 5
  entracte serve --model DIR

`entracte COMMAND --help` has the flags of a command, and examples.
"""


def main_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a command line, with the flags of the one command that it names.

    Raises UsageError for a command that there is not.
    """
    parser = Parser(
        prog="entracte",
        usage="entracte [--help] [--version] COMMAND …",
        description="Two-stage video with sound from LTX-2.3.\n\n" + _summaries(),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        prog="entracte",
        metavar="COMMAND",
        required=True,
        help=argparse.SUPPRESS,
        parser_class=Parser,
    )
    named = next(iter(words), "-")
    if named in COMMANDS:
        command_module(named).add_parser(commands)
    elif not named.startswith("-"):
        near = difflib.get_close_matches(named, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see `entracte --help`"
        raise UsageError(f"there is no command {named!r}; {hint}")
    return parser


def command_module(name: str) -> ModuleType:
    """The module of a command, which has `add_parser`."""
    with _told(name):
        return import_module(f"entracte.cli.{name.replace('-', '_')}")


@contextmanager
def _told(name: str) -> Iterator[None]:
    """On a terminal, show at once that the command has begun; gone when it has been imported."""
    if not sys.stderr.isatty():
        yield
        return
    words = f"entracte {__version__}: {name} …"
    print(words, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r" + " " * len(words) + "\r", end="", file=sys.stderr, flush=True)


def _summaries() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = []
    for title, commands in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:<{width}}{commands[name]}" for name in commands), ""]
    return "\n".join(lines).rstrip()
