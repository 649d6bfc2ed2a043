"""The feed: tells those who listen that something changed.

Changes come from any thread; listeners live on the event loop. A listener that is slow gets the
newest state of each thing and misses states between, so it costs no more than there are things.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

Kind = Literal["video", "deleted", "preview", "engine"]


@dataclass(frozen=True, slots=True)
class News:
    """A change: of a video, whose owner may know of it, or of the engine (owner None).

    image: of a preview, WebP. step: of a preview.
    """

    kind: Kind
    video_id: str = ""
    owner: str | None = None
    image: bytes = b""
    step: int = 0


class Listener:
    """What one listener has not heard yet."""

    def __init__(self, wants: Callable[[News], bool]) -> None:
        self.wants = wants
        self._loop = asyncio.get_running_loop()
        self._news: dict[tuple[Kind, str], News] = {}
        self._some = asyncio.Event()
        self.closed = False

    def put(self, news: News) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # after the loop has closed there is nobody to tell
            self._loop.call_soon_threadsafe(self._put, news)

    def close(self) -> None:
        """From any thread: there will be no more news."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._close)

    async def hear(self, timeout: float) -> list[News]:
        """What is new; empty after `timeout` seconds without news."""
        try:
            async with asyncio.timeout(timeout):
                await self._some.wait()
        except TimeoutError:
            return []
        self._some.clear()
        news, self._news = list(self._news.values()), {}
        return news

    def _put(self, news: News) -> None:
        self._news[news.kind, news.video_id] = news
        self._some.set()

    def _close(self) -> None:
        self.closed = True
        self._some.set()


class Feed:
    """All listeners."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()

    @contextmanager
    def listening(self, wants: Callable[[News], bool]) -> Iterator[Listener]:
        """A listener on the running event loop, for as long as the block lasts."""
        listener = Listener(wants)
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def tell(self, news: News) -> None:
        """From any thread."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            if listener.wants(news):
                listener.put(news)

    def close(self) -> None:
        """The server stops: everybody may go."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.close()
