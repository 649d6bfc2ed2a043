"""Turns: each kind of work has its own threads, of which each client gets a few.

Slow work of one client, or of one kind, delays nothing else.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, TypeVarTuple

import anyio
from anyio import CapacityLimiter, Semaphore, to_thread

Returned = TypeVar("Returned")
Arguments = TypeVarTuple("Arguments")


class Turns:
    """Threads for one kind of work, on the event loop. at_once: in total. each: per owner."""

    def __init__(self, at_once: int, each: int) -> None:
        self._threads = CapacityLimiter(at_once)
        self._each = each
        self._owners: dict[str, _Owner] = {}

    async def run(
        self, owner: str, function: Callable[[*Arguments], Returned], *arguments: *Arguments
    ) -> Returned:
        """Call a function in a thread at the owner's turn."""
        async with self._turn_of(owner):
            call = partial(function, *arguments)
            return await to_thread.run_sync(call, limiter=self._threads)

    @asynccontextmanager
    async def _turn_of(self, owner: str) -> AsyncIterator[None]:
        this = self._owners.setdefault(owner, _Owner(Semaphore(self._each)))
        this.users += 1
        try:
            async with this.turns:
                yield
        finally:
            this.users -= 1
            if not this.users:
                del self._owners[owner]


@dataclass(slots=True)
class _Owner:
    turns: anyio.Semaphore
    users: int = 0


@dataclass(frozen=True, slots=True)
class Pools:
    """The turns by kind of work. Owners are keys, or host names for `hosts`."""

    parsing: Turns = field(default_factory=lambda: Turns(2, 1))  # large bodies
    intake: Turns = field(default_factory=lambda: Turns(16, 4))  # checks, and the database
    pictures: Turns = field(default_factory=lambda: Turns(1, 1))  # large when decoded
    hosts: Turns = field(default_factory=lambda: Turns(16, 2))
    estimates: Turns = field(default_factory=lambda: Turns(16, 4))
    uploads: Turns = field(default_factory=lambda: Turns(16, 4))
    downloads: Turns = field(default_factory=lambda: Turns(16, 4))
    variants: Turns = field(default_factory=lambda: Turns(2, 1))
