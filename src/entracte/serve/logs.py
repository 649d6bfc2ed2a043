"""The log: one line per event, as JSON or as text, without prompts and keys."""

import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from entracte.errors import EntracteError

Style = Literal["auto", "json", "text"]

# Seconds between two lines of one kind: clients must not be able to fill the disk.
THIN_SECONDS = 10.0
KINDS = 1000

# Of a line that a library wrote to standard error.
LINE_CHARACTERS = 2000


def is_text(style: Style, stream: TextIO) -> bool:
    """Whether the log is for people."""
    return style == "text" or (style == "auto" and stream.isatty())


def open_log(style: Style, stream: TextIO = sys.stderr) -> FilteringBoundLogger:
    """A logger that does not touch the configuration of other loggers.

    An event with `thin=kind` is dropped if there was one of that kind within THIN_SECONDS.
    """
    text = is_text(style, stream)
    processors: list[Processor] = [
        Thin(),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not text),
        _without_words,
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if text
        else structlog.processors.JSONRenderer(),
    ]
    log: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    return log


class Thin:
    """Drops events like an earlier one; the next one that passes says how many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[object, tuple[float, int]] = {}  # when, and how many were dropped since

    def __call__(self, _: object, __: str, event: EventDict) -> EventDict:
        kind = event.pop("thin", None)
        if kind is None:
            return event
        with self._lock:
            now = self._clock()
            told_at, left_out = self._told.pop(kind, (-THIN_SECONDS, 0))
            if now - told_at < THIN_SECONDS:
                self._told[kind] = told_at, left_out + 1
                raise structlog.DropEvent
            self._told[kind] = now, 0
            if len(self._told) > KINDS:
                del self._told[next(iter(self._told))]
        if left_out:
            event["left_out"] = left_out
        return event


class ToLog(logging.Handler):
    """Passes the logs of libraries to our own log."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        more: dict[str, Any] = {"logger": record.name}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            more["exc_info"] = error
        kind = record.name, record.levelno, record.msg, _place(error)
        self._log.log(record.levelno, record.getMessage(), thin=kind, **more)


@contextmanager
def process_log(style: Style) -> Iterator[tuple[FilteringBoundLogger, TextIO]]:
    """The log of a whole process, and the standard error that it is written to.

    Only for a process that is entirely ours: within the block, logs and warnings of libraries,
    uncaught errors, and (where the log is JSON) whatever is written to standard error,
    by this process or its workers, become events of the log.
    """
    descriptor = None if is_text(style, sys.stderr) else _descriptor(sys.stderr)
    with _standard_error(descriptor) as (stream, written):
        log = open_log(style, stream)
        handler = ToLog(log)
        logging.getLogger().addHandler(handler)
        logging.captureWarnings(True)
        hooks = threading.excepthook, sys.unraisablehook

        def uncaught(error: BaseException | None, where: str) -> None:
            log.critical("an uncaught error", where=where, exc_info=error)

        threading.excepthook = lambda found: uncaught(
            found.exc_value, found.thread.name if found.thread else "thread"
        )
        sys.unraisablehook = lambda found: uncaught(found.exc_value, "clean-up")
        try:
            with written(log):
                yield log, stream
        except EntracteError:
            raise
        except Exception as error:  # a traceback would not be one line of the log
            uncaught(error, "main")
            raise SystemExit(1) from None
        finally:
            threading.excepthook, sys.unraisablehook = hooks
            logging.captureWarnings(False)
            logging.getLogger().removeHandler(handler)


@contextmanager
def _standard_error(
    descriptor: int | None,
) -> Iterator[tuple[TextIO, Callable[[FilteringBoundLogger], Any]]]:
    """The real standard error, and a function that logs all that is written to its descriptor."""
    if descriptor is None:
        yield sys.stderr, _nothing
        return
    sys.stderr.flush()
    with os.fdopen(os.dup(descriptor), "w", buffering=1) as real:
        reading, writing = os.pipe()

        @contextmanager
        def told(log: FilteringBoundLogger) -> Iterator[None]:
            os.dup2(writing, descriptor)
            reader = threading.Thread(target=_tell, args=(reading, log), daemon=True)
            reader.start()
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(real.fileno(), descriptor)
                os.write(writing, _END)  # others may still hold the pipe open
                reader.join()

        try:
            yield real, told
        finally:
            os.close(writing)
            os.close(reading)


def _descriptor(stream: TextIO) -> int | None:
    """A stream's descriptor; None for one in memory."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


_END = b"\0\n"


def _tell(reading: int, log: FilteringBoundLogger) -> None:
    with os.fdopen(os.dup(reading), "rb") as lines:
        for line in lines:
            if line.endswith(_END):
                return
            text = line.decode(errors="replace").rstrip()[:LINE_CHARACTERS]
            if text:
                log.warning("standard error", text=text, thin=("text", re.sub(r"\d+", "0", text)))


@contextmanager
def _nothing(_: FilteringBoundLogger) -> Iterator[None]:
    yield


def _without_words(_: object, __: str, event: EventDict) -> EventDict:
    """The type and place of an error, without its message, which may quote what a client sent."""
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        event["error_type"] = type(error).__name__
        event["raised_at"] = [
            f"{frame.filename}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
    return event


def _place(error: BaseException | None) -> object:
    """Identifies an error, to distinguish those logged with the same message."""
    if error is None:
        return None
    frames = traceback.extract_tb(error.__traceback__)
    return type(error), frames[-1].filename if frames else "", frames[-1].lineno if frames else 0
