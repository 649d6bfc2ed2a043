"""One worker process, seen from the server: starts it, exchanges messages, notices its end.

A process may stop reading, writing or existing at any moment. Two threads of the handle wait for
it; callers of the handle wait no longer than its methods say.
"""

import multiprocessing
import queue
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import wait

from .messages import FromWorker, ToWorker
from .process import serve
from .protocol import OpenRunner

# Messages that the process has not read yet. More are dropped: it has stopped reading.
MAX_UNSENT = 16

# Most messages that one `receive` returns.
MAX_RECEIVED = 100

# How long the operating system may take to end a process that was killed.
KILL_SECONDS = 5.0


class Wake:
    """In place of a message: the supervisor has something to do."""


class ProcessHandle:
    """A process that runs `serve`. It is spawned rather than forked: CUDA and threads do not
    survive a fork.
    """

    def __init__(self, name: str, open_runner: OpenRunner, nice: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, open_runner, nice), name=name, daemon=True
        )
        self._process.start()
        theirs.close()  # else we would never see the end of the pipe
        self._outgoing: queue.Queue[ToWorker | None] = queue.Queue(MAX_UNSENT)
        self._incoming: queue.SimpleQueue[FromWorker | Wake | None] = queue.SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=target, name=f"{name} {target.__name__}", daemon=True)
            for target in (self._send_all, self._receive_all)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def send(self, message: ToWorker) -> bool:
        """Send the process a message, from any thread, without waiting.

        False if it has stopped reading.
        """
        try:
            self._outgoing.put_nowait(message)
        except queue.Full:
            return False
        return True

    def wake(self) -> None:
        """Have a `receive` that waits return now, from any thread."""
        self._incoming.put(Wake())

    def receive(self, timeout: float) -> list[FromWorker] | None:
        """The messages since the last call; None once it has died and all were received."""
        received: list[FromWorker] = []
        deadline = time.monotonic() + timeout
        while not self._closed and len(received) < MAX_RECEIVED:
            wait_s = 0.0 if received else max(0.0, deadline - time.monotonic())
            try:
                message = self._incoming.get(timeout=wait_s)
            except queue.Empty:
                break
            if message is None:
                self._closed = True
            elif isinstance(message, Wake):
                break
            else:
                received.append(message)
        return None if self._closed and not received else received

    def end(self, patience: float) -> None:
        """Wait for the process to end; kill it if it does not."""
        self._process.join(patience)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(KILL_SECONDS)
        with suppress(queue.Full):  # if it is full, the thread fails at what it is sending
            self._outgoing.put_nowait(None)
        for thread in self._threads:
            thread.join(1)
        if not any(thread.is_alive() for thread in self._threads):
            self._connection.close()

    def kill(self) -> None:
        self._process.kill()

    def how_it_died(self) -> str:
        """A description, once it has died."""
        code = self._process.exitcode
        if code is None:
            return "it does not answer"
        if code < 0:
            names = {each.value: each.name for each in signal.Signals}
            return f"killed by {names.get(-code, f'signal {-code}')}"
        return f"exit code {code}"

    def _send_all(self) -> None:
        try:
            while (message := self._outgoing.get()) is not None:
                self._connection.send(message)
        except OSError:
            return  # it is dead

    def _receive_all(self) -> None:
        try:
            while self._connection in wait([self._connection, self._process.sentinel]):
                self._incoming.put(self._connection.recv())
        except (EOFError, OSError):
            pass  # it is dead
        finally:
            self._incoming.put(None)
