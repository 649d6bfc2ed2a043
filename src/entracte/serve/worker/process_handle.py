"""One worker process, from the server's side: started, spoken to, and its end noticed.

A process may stop to read, to write or to exist at any moment. Two threads of the handle wait for
it; whoever uses the handle waits no longer than it says.
"""

import multiprocessing
import queue
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import wait

from .maker import OpenMaker
from .messages import FromWorker, ToWorker
from .process import serve

# Messages that the process has not taken yet. More are dropped: it will not be heard of again.
MAX_UNSENT = 16

# How many messages are handed over at once.
MAX_HEARD = 100

# How long the system may take to end a process that was killed.
KILL_SECONDS = 5.0


class ProcessHandle:
    """A process that runs `serve`. It is begun afresh rather than forked: CUDA and threads do not
    survive a fork.
    """

    def __init__(self, name: str, open_maker: OpenMaker, nice: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(theirs, open_maker, nice), name=name, daemon=True
        )
        self._process.start()
        theirs.close()  # or we would never see the pipe's end
        self._to_say: queue.Queue[ToWorker | None] = queue.Queue(MAX_UNSENT)
        self._told: queue.SimpleQueue[FromWorker | None] = queue.SimpleQueue()
        self._silent = False
        self._threads = [
            threading.Thread(target=target, name=f"{name} {target.__name__}", daemon=True)
            for target in (self._speak, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def say(self, message: ToWorker) -> bool:
        """Tell the process something, from any thread, without waiting.

        False where it has stopped to listen.
        """
        try:
            self._to_say.put_nowait(message)
        except queue.Full:
            return False
        return True

    def hear(self, timeout: float) -> list[FromWorker] | None:
        """What the process told since; None once it has died and everything was heard."""
        heard: list[FromWorker] = []
        deadline = time.monotonic() + timeout
        while not self._silent and len(heard) < MAX_HEARD:
            wait_s = 0.0 if heard else max(0.0, deadline - time.monotonic())
            try:
                message = self._told.get(timeout=wait_s)
            except queue.Empty:
                break
            if message is None:
                self._silent = True
            else:
                heard.append(message)
        return None if self._silent and not heard else heard

    def end(self, patience: float) -> None:
        """Wait for the process to end; kill it where it does not."""
        self._process.join(patience)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(KILL_SECONDS)
        with suppress(queue.Full):  # where it is full, the thread fails at what it is sending
            self._to_say.put_nowait(None)
        for thread in self._threads:
            thread.join(1)
        if not any(thread.is_alive() for thread in self._threads):
            self._connection.close()

    def kill(self) -> None:
        self._process.kill()

    def how_it_died(self) -> str:
        """In words, once it has."""
        code = self._process.exitcode
        if code is None:
            return "it does not answer"
        if code < 0:
            names = {each.value: each.name for each in signal.Signals}
            return f"killed by {names.get(-code, f'signal {-code}')}"
        return f"exit code {code}"

    def _speak(self) -> None:
        try:
            while (message := self._to_say.get()) is not None:
                self._connection.send(message)
        except OSError:
            return  # it is dead

    def _listen(self) -> None:
        try:
            while self._connection in wait([self._connection, self._process.sentinel]):
                self._told.put(self._connection.recv())
        except (EOFError, OSError):
            pass  # it is dead
        finally:
            self._told.put(None)
