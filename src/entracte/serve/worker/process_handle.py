"""One worker process, from the server's side: started, spoken to, and its end noticed."""

import multiprocessing
import signal
import threading
from multiprocessing.connection import wait

from .maker import OpenMaker
from .messages import FromWorker, ToWorker
from .process import serve


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
        self._speaking = threading.Lock()
        theirs.close()  # or we would never see the pipe's end

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def say(self, message: ToWorker) -> None:
        """Tell the process something, from any thread; one that is dead does not hear it."""
        with self._speaking:
            try:
                if not self._connection.closed:
                    self._connection.send(message)
            except (BrokenPipeError, ConnectionError):
                return

    def hear(self, timeout: float) -> list[FromWorker] | None:
        """What the process told since; None once it has died and everything was heard."""
        ready = wait([self._connection, self._process.sentinel], timeout)
        heard: list[FromWorker] = []
        if self._connection in ready:
            try:
                while self._connection.poll():
                    heard.append(self._connection.recv())
            except (EOFError, ConnectionError):
                if not heard:
                    self._process.join(5)
                    return None
        elif ready:
            return None
        return heard

    def end(self, patience: float) -> None:
        """Wait for the process to end; kill it where it does not."""
        self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        with self._speaking:
            self._connection.close()

    def kill(self) -> None:
        self._process.kill()

    def how_it_died(self) -> str:
        """In words, once it has."""
        code = self._process.exitcode
        if code is None:
            return "it does not answer"
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"
