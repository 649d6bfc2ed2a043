"""Why a rate cannot be measured."""

import subprocess

from entracte.errors import EntracteError


class NotMeasured(EntracteError):
    """A rate cannot be measured on this machine; says why."""


class TooLittle(NotMeasured):
    """There is too little data to measure it, and for it to matter."""


class PinningRefused(NotMeasured):
    """The system did not pin host memory."""


def refusals() -> tuple[type[Exception], ...]:
    """What torch, Triton and the system raise where they cannot do what was asked.

    torch and Triton raise plain RuntimeErrors for much of it, such as a missing compiler.
    """
    known: tuple[type[Exception], ...] = (
        EntracteError,
        RuntimeError,
        OSError,
        subprocess.SubprocessError,
    )
    try:
        from triton.errors import TritonError
    except ImportError:
        return known
    return (*known, TritonError)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
