"""The event bus: what happens to videos and to the engine, published to subscribers.

Events come from any thread; subscribers live on the event loop. A slow subscriber gets the newest
event of each kind and video and misses those before it, so its backlog is bounded.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

Kind = Literal["video", "deleted", "preview", "engine", "queued"]


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """A change of a video, for its owner, or of the engine (owner None). `queued` is for workers:
    there may be work.

    image: of a preview, WebP. step: of a preview.
    """

    kind: Kind
    video_id: str = ""
    owner: str | None = None
    image: bytes = b""
    step: int = 0


class Subscriber:
    """A queue of the events that one client has not received yet."""

    def __init__(self, wants: Callable[[ServerEvent], bool]) -> None:
        self.wants = wants
        self._loop = asyncio.get_running_loop()
        self._pending: dict[tuple[Kind, str], ServerEvent] = {}
        self._arrived = asyncio.Event()
        self.closed = False

    def put(self, event: ServerEvent) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop has closed, and with it all subscribers
            self._loop.call_soon_threadsafe(self._put, event)

    def close(self) -> None:
        """End the stream, from any thread."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._close)

    async def receive(self, timeout: float) -> list[ServerEvent]:
        """The events since the last call; empty after `timeout` seconds without one."""
        try:
            async with asyncio.timeout(timeout):
                await self._arrived.wait()
        except TimeoutError:
            return []
        self._arrived.clear()
        events, self._pending = list(self._pending.values()), {}
        return events

    def _put(self, event: ServerEvent) -> None:
        self._pending[event.kind, event.video_id] = event
        self._arrived.set()

    def _close(self) -> None:
        self.closed = True
        self._arrived.set()


class EventBus:
    """Passes events on to the subscribers that want them.

    forward: also gets what is published here, for other nodes.
    """

    def __init__(self) -> None:
        self.forward: Callable[[ServerEvent], None] | None = None
        self._lock = threading.Lock()
        self._subscribers: set[Subscriber] = set()

    @contextmanager
    def subscribe(self, wants: Callable[[ServerEvent], bool]) -> Iterator[Subscriber]:
        """A subscriber on the running event loop, for as long as the block lasts."""
        subscriber = Subscriber(wants)
        with self._lock:
            self._subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            with self._lock:
                self._subscribers.discard(subscriber)

    def publish(self, event: ServerEvent) -> None:
        """Deliver an event here and to other nodes, from any thread."""
        self.deliver(event)
        if self.forward is not None:
            self.forward(event)

    def is_wanted(self, event: ServerEvent) -> bool:
        """Whether somebody here subscribes to it."""
        with self._lock:
            return any(subscriber.wants(event) for subscriber in self._subscribers)

    def deliver(self, event: ServerEvent) -> None:
        """Deliver an event here, from any thread."""
        with self._lock:
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            if subscriber.wants(event):
                subscriber.put(event)

    def close(self) -> None:
        """Tell all subscribers that the server stops."""
        with self._lock:
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            subscriber.close()
