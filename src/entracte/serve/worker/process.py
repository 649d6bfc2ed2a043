"""The worker's process: takes work from a pipe, one piece at a time, and tells how it goes."""

import logging
import os
import queue
import signal
import threading
from multiprocessing.connection import Connection

from entracte.errors import EntracteError

from .maker import Maker, OpenMaker, WorkFailed
from .messages import (
    Answer,
    Ask,
    Beat,
    Cancel,
    Failed,
    FromWorker,
    Log,
    Ready,
    Refused,
    Stop,
    Warming,
    Work,
)

BEAT_SECONDS = 2.0

# How the process ends after work that leaves it in no fit state.
EXIT_UNFIT = 3


class Line:
    """The pipe to the server; several threads tell things."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def tell(self, message: FromWorker) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except BrokenPipeError:
                os._exit(0)  # the server is gone, and so is whoever wants the work


class LineHandler(logging.Handler):
    """Sends what is logged to the server, which has one log for all."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        self._line.tell(Log(record.levelno, record.name, record.getMessage()))


def serve(connection: Connection, open_maker: OpenMaker, nice: int = 0) -> None:
    """Run until told to stop, or until the server is gone."""
    # Whoever stops the server tells the server, which tells us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(nice)
    os.umask(0o077)  # videos are their owner's alone
    line = Line(connection)
    logging.basicConfig(level=logging.WARNING, handlers=[LineHandler(line)])
    work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
    desk = Desk(connection, line, work)
    threading.Thread(target=desk.listen, name="listen", daemon=True).start()
    threading.Thread(target=_beat, args=(line,), name="beat", daemon=True).start()
    try:
        maker = open_maker()
        line.tell(Warming())
        maker.warm_up(line.tell)
    except EntracteError as error:
        line.tell(Refused(str(error)))
        return
    desk.maker = maker
    line.tell(Ready(maker.device))
    while (piece := work.get()) is not None:
        if not _carry_out(maker, piece, line, desk):
            os._exit(EXIT_UNFIT)
    maker.close()


def _carry_out(maker: Maker, piece: Work, line: Line, desk: "Desk") -> bool:
    """Whether the process may take more work."""

    def should_stop() -> bool:
        return piece.job_id in desk.cancelled

    try:
        done = maker.make(piece, line.tell, should_stop)
    except WorkFailed as failure:
        code, message = failure.code, failure.message
        line.tell(Failed(piece.job_id, code, message, failure.detail, failure.fatal))
        return not failure.fatal
    finally:
        desk.cancelled.discard(piece.job_id)
    line.tell(done)
    return True


class Desk:
    """Takes what the server says, while work goes on."""

    def __init__(
        self, connection: Connection, line: Line, work: "queue.SimpleQueue[Work | None]"
    ) -> None:
        self._connection = connection
        self._line = line
        self._work = work
        self.maker: Maker | None = None
        self.cancelled: set[str] = set()

    def listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, ConnectionError):
                os._exit(0)  # the server is gone: nobody may keep the device from the next one
            match message:
                case Work():
                    self._work.put(message)
                case Cancel(job_id):
                    self.cancelled.add(job_id)
                case Ask(number, request):
                    seconds = None if self.maker is None else self.maker.estimate(request)
                    self._line.tell(Answer(number, seconds))
                case Stop():
                    self._work.put(None)


def _beat(line: Line) -> None:
    pause = threading.Event()
    while not pause.wait(BEAT_SECONDS):
        line.tell(Beat())
