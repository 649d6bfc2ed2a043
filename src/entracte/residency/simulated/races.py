"""Errors of programs that the simulated accelerator detects."""


class RaceError(AssertionError):
    """A rule of the device was broken: on a real one the result would depend on luck."""


class UnorderedRead(RaceError):
    """A missing wait before a read."""


class UnorderedWrite(RaceError):
    """Memory is overwritten while it is still being read or written."""


class UseAfterRelease(RaceError):
    """Memory is used after it was freed."""


class NotLent(RaceError):
    """A module touches memory that is not lent: a pointer kept for too long, or given too early."""


class HostWaitInStep(RaceError):
    """The host would wait for the device inside a step."""


class UnjoinedTask(RaceError):
    """The work of a reader's task is relied on before the host has waited for the task."""
