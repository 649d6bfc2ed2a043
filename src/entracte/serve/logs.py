"""The log: one line an event, JSON for machines or text for people; no prompt, no key is in it."""

import logging
import sys
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor


def open_log(
    style: Literal["auto", "json", "text"], stream: TextIO = sys.stderr
) -> FilteringBoundLogger:
    """A logger of its own, which changes nothing of anybody else's."""
    text = style == "text" or (style == "auto" and stream.isatty())
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not text),
        structlog.processors.format_exc_info,
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


class ToLog(logging.Handler):
    """Hands what libraries log to our own log."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        more: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            more["exc_info"] = record.exc_info
        self._log.log(record.levelno, record.getMessage(), **more)
