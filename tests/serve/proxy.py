"""A network between processes of this machine that can be cut and healed."""

import socket
import threading
from contextlib import suppress


class Proxy:
    """Passes connections on to a port of this machine; `close` it in the end."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and accept none."""
        with self._lock:
            self._cut = True
            ending = list(self._open)
        for each in ending:
            self._end(each)

    def heal(self) -> None:
        self._cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        far = socket.socket()
        with near, far:
            try:
                far.connect(("127.0.0.1", self._to))
                with self._lock:
                    if self._cut:
                        return
                    self._open |= {near, far}
                back = threading.Thread(target=self._pass, args=(far, near), daemon=True)
                back.start()
                self._pass(near, far)
                back.join()
            except OSError:
                return
            finally:
                with self._lock:
                    self._open -= {near, far}

    def _pass(self, source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                to.sendall(data)
        self._end(source)
        self._end(to)

    @staticmethod
    def _end(end: socket.socket) -> None:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
