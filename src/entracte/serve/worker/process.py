"""The worker's process: takes work from a pipe, one piece at a time, and tells how it goes.

What a request causes fails that request. What leaves the process unable to hear, to answer or to
compute ends it, and the server starts another.
"""

import logging
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

from entracte.errors import DeviceFault, EntracteError, OutOfMemory

from .maker import MEMORY_WORDS, Maker, OpenMaker, WorkFailed
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

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2.0

# How the process ends where it is in no state to go on.
EXIT_UNFIT = 3

# After so many unforeseen errors in a row the engine itself is taken to be broken.
MAX_UNFORESEEN = 3

MISTAKE_WORDS = "The server made a mistake while it made this video."


class Line:
    """The pipe to the server; several threads tell things."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def tell(self, message: FromWorker) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(0)  # the server is gone, and so is whoever wants the work


class LineHandler(logging.Handler):
    """Sends what is logged to the server, which has one log for all."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        trace = ""
        if record.exc_info:
            trace = "".join(traceback.format_exception(*record.exc_info))
        self._line.tell(Log(record.levelno, record.name, record.getMessage(), trace))


def serve(connection: Connection, open_maker: OpenMaker, nice: int = 0) -> None:
    """Run until told to stop, or until the server is gone."""
    # Whoever stops the server tells the server, which tells us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(nice)
    os.umask(0o077)  # videos are their owner's alone
    line = Line(connection)
    logging.basicConfig(level=logging.WARNING, handlers=[LineHandler(line)])
    desk = Desk(connection, line)
    for loop in (desk.listen, desk.answer, partial(_beat, line)):
        threading.Thread(target=_or_end, args=(loop,), daemon=True).start()
    maker = _open(open_maker, line)
    if maker is None:
        return
    desk.maker = maker
    line.tell(Ready(maker.device))
    unforeseen = 0
    while (piece := desk.work.get()) is not None:
        outcome = _carry_out(maker, piece, line, desk)
        unforeseen = unforeseen + 1 if outcome == "unforeseen" else 0
        if outcome == "unfit" or unforeseen == MAX_UNFORESEEN:
            os._exit(EXIT_UNFIT)
    maker.close()


def _or_end(loop: Callable[[], None]) -> None:
    """Run a thread's loop; a process without it would live on and be of no use."""
    try:
        loop()
    except BaseException:  # panics of Rust libraries are not an Exception
        logger.exception("a thread of the worker ended")
    os._exit(EXIT_UNFIT)


def _open(open_maker: OpenMaker, line: Line) -> Maker | None:
    """The maker, warm; None where the server was told that there can be none."""
    try:
        maker = open_maker()
        line.tell(Warming())
        maker.warm_up(line.tell)
    except (DeviceFault, OutOfMemory, MemoryError):
        logger.exception("the engine cannot be opened now")
        os._exit(EXIT_UNFIT)  # another attempt may go well
    except EntracteError as error:
        line.tell(Refused(str(error)))
        return None
    except BaseException as error:  # whatever a model's files cause, they will cause it again
        logger.exception("the engine cannot be opened")
        line.tell(Refused(f"the model cannot be opened: {type(error).__name__}: {error}"))
        return None
    return maker


def _carry_out(maker: Maker, piece: Work, line: Line, desk: "Desk") -> str:
    """Make a video, and tell how that ended: `well`, `unforeseen`, or `unfit` for more work."""

    def should_stop() -> bool:
        return piece.job_id in desk.cancelled

    try:
        done = maker.make(piece, line.tell, should_stop)
    except WorkFailed as failure:
        code, message = failure.code, failure.message
        line.tell(Failed(piece.job_id, code, message, failure.detail, failure.fatal))
        return "unfit" if failure.fatal else "well"
    except BaseException as error:  # this request's failure; panics are not an Exception
        logger.exception("a video failed for a reason that was not foreseen")
        detail = f"{type(error).__name__}: {error}"
        if isinstance(error, MemoryError):
            line.tell(Failed(piece.job_id, "out_of_memory", MEMORY_WORDS, detail, fatal=True))
            return "unfit"
        line.tell(Failed(piece.job_id, "internal_error", MISTAKE_WORDS, detail))
        return "unforeseen"
    finally:
        desk.cancelled.discard(piece.job_id)
    line.tell(done)
    return "well"


class Desk:
    """Takes what the server says, while work goes on.

    Questions wait for each other, and nothing else waits for them. work: what is to be made, None
    at the end. cancelled: ids of work to be stopped.
    """

    def __init__(self, connection: Connection, line: Line) -> None:
        self._connection = connection
        self._line = line
        self._asked: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self.work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self.maker: Maker | None = None
        self.cancelled: set[str] = set()

    def listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # the server is gone: nobody may keep the device from the next one
            match message:
                case Work():
                    self.work.put(message)
                case Cancel(job_id):
                    self.cancelled.add(job_id)
                case Ask():
                    self._asked.put(message)
                case Stop():
                    self.work.put(None)

    def answer(self) -> None:
        while True:
            self._line.tell(self._estimate(self._asked.get()))

    def _estimate(self, ask: Ask) -> Answer:
        if self.maker is None:
            return Answer(ask.number)
        try:
            return Answer(ask.number, self.maker.estimate(ask.request))
        except WorkFailed as refused:
            return Answer(ask.number, None, refused.code, refused.message)
        except BaseException:  # what is asked for may be anything; panics are not an Exception
            logger.exception("an estimate failed")
            return Answer(ask.number)


def _beat(line: Line) -> None:
    pause = threading.Event()
    while not pause.wait(BEAT_SECONDS):
        line.tell(Beat())
