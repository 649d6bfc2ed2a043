"""Runs a node without HTTP: works until told to stop, and loses nothing."""

import os
import signal
import threading
from types import FrameType

from .errors import ServerError
from .node import STOP_SECONDS, Node

# Files of a node and its workers are readable only by their owner.
OWNER_ONLY = 0o077

# How much longer a stop may take than its parts, before the process exits regardless.
PATIENCE_SECONDS = 15
EXIT_STUCK = 1

# How often to see whether any worker is left.
WATCH_SECONDS = 0.5


def run_node(node: Node) -> None:
    """Work until told to stop; raises ServerError if no engine can be opened.

    SIGTERM or Ctrl-C: claim nothing more, let running videos finish, and return those to the queue
    that do not finish in time. A second signal returns them at once.
    """
    asked, hurried = threading.Event(), threading.Event()

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        (hurried if asked.is_set() else asked).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    os.umask(OWNER_ONLY)
    node.start()
    try:
        while not asked.wait(WATCH_SECONDS) and any(s.is_alive() for s in node.supervisors):
            pass
        if asked.is_set():
            _drain(node, hurried)
    finally:
        last = threading.Timer(STOP_SECONDS + PATIENCE_SECONDS, os._exit, [EXIT_STUCK])
        last.daemon = True
        last.start()
        node.stop()
        last.cancel()
    if node.startup_error is not None:
        raise ServerError(node.startup_error)


def _drain(node: Node, hurried: threading.Event) -> None:
    seconds = node.settings.drain_seconds
    node.log.info("stopping", drain_seconds=seconds)
    drains = threading.Thread(target=node.drain, args=(seconds,), name="drain", daemon=True)
    drains.start()
    while drains.is_alive() and not hurried.is_set():
        drains.join(WATCH_SECONDS)
