"""Safe output to a terminal.

Text from outside (prompts, names, paths, errors) can neither control the terminal nor be parsed as
Rich's markup.
"""

import sys
import unicodedata
from typing import TextIO

# Replaces characters that a terminal would act on.
REPLACED = "\N{REPLACEMENT CHARACTER}"

# Characters that reorder what is written around them (UAX #9).
BIDI_CONTROLS = frozenset(
    "\N{ARABIC LETTER MARK}\N{LEFT-TO-RIGHT MARK}\N{RIGHT-TO-LEFT MARK}"
    "\N{LEFT-TO-RIGHT EMBEDDING}\N{RIGHT-TO-LEFT EMBEDDING}\N{POP DIRECTIONAL FORMATTING}"
    "\N{LEFT-TO-RIGHT OVERRIDE}\N{RIGHT-TO-LEFT OVERRIDE}\N{LEFT-TO-RIGHT ISOLATE}"
    "\N{RIGHT-TO-LEFT ISOLATE}\N{FIRST STRONG ISOLATE}\N{POP DIRECTIONAL ISOLATE}"
)

# Of Unicode's categories: controls (C0, C1, DEL), lone surrogates, separators of lines.
FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def clean(text: object, lines: bool = False) -> str:
    """Text without control characters, bidirectional controls and lone surrogates.

    lines: whether to keep line feeds.
    """
    return "".join(
        character if (lines and character == "\n") or _is_harmless(character) else REPLACED
        for character in str(text)
    )


def say(text: object, file: TextIO | None = None) -> None:
    """Print one line, cleaned."""
    print(clean(text), file=file or sys.stdout)


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in FORBIDDEN and character not in BIDI_CONTROLS
