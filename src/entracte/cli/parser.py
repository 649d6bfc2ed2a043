"""The parser of all commands."""

import argparse
import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from entracte.errors import EntracteError
from entracte.version import __version__


class UsageError(EntracteError):
    """The command line itself is wrong."""


class HelpFormatter(argparse.HelpFormatter):
    """Shows a flag's values as in the settings, not as argparse's `X [X ...]`, and keeps lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == "+" and isinstance(action.metavar, str):
            return action.metavar.replace("…", " ...")
        return super()._format_args(action, default_metavar)


class Parser(argparse.ArgumentParser):
    """Accepts only full flag names, and raises UsageError for unknown arguments."""

    def __init__(self, free: str = "", **options: Any) -> None:
        """free: where the one word goes that belongs to no flag, if there may be one."""
        options.setdefault("formatter_class", HelpFormatter)
        # A command's own --version wins over the one below.
        super().__init__(**(options | {"allow_abbrev": False, "conflict_handler": "resolve"}))
        self._free = free
        self.add_argument("--version", action="version", version=f"entracte {__version__}")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Like argparse's, but unknown arguments are errors."""
        options, rest = super().parse_known_args(args, namespace)
        words = [word for word in rest if not word.startswith("-")]
        if self._free and len(rest) == len(words) == 1:
            if self._free in vars(options):
                self.error(f"the {self._free} is given twice")
            setattr(options, self._free, words[0])
        elif self._free and len(words) > 1:
            self.error(f"unexpected argument {words[1]!r}; put the {self._free} in quotes")
        elif rest:
            self.error(self._unknown(rest))
        return options, []

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("argument ")
        raise UsageError(f"{words}; see `{self.prog} --help`")

    def _unknown(self, rest: Sequence[str]) -> str:
        flags = [word.partition("=")[0] for word in rest if word.startswith("-")]
        if not flags:
            return f"unexpected argument {rest[0]!r}"
        known = self._option_string_actions
        near = difflib.get_close_matches(flags[0], known, n=1)
        return f"unknown option {flags[0]}" + (f"; did you mean {near[0]}?" if near else "")


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """For `type`: a whole number between two, inclusive."""

    def parse(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {least:,} to {most:,}, not {word[:40]!r}"
            )
        return number

    return parse


def at_least_zero(word: str) -> float:
    """For `type`: a finite number that is not negative."""
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, not {word[:40]!r}")
    return number
