"""The protocol of backends: memory, streams of work, events, and merges.

There are three: `cuda`, `host`, and the simulated accelerator, which checks every rule below.

Rules. A *stream* executes its work in order, and waits for other streams only where told to. Work
that reads memory must be ordered, by events, after the work that wrote it; work that writes memory,
after all work that read or wrote it. The *host* is not ordered either: it runs ahead of the
streams, and must wait for an event before it touches memory that they use.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from entracte.residency.formats import Expansion, Quantisation
from entracte.residency.merge import WeightMerge

from .board import Board
from .peers import Peers

# From the host to the device, from the device to the host, within the device, or from another one.
Direction = Literal["in", "out", "within", "peer"]


@dataclass(slots=True)
class Traffic:
    """Bytes of weights copied in every direction; the number of weights merged, and expanded."""

    bytes_in: int = 0
    bytes_out: int = 0
    bytes_within: int = 0
    merges: int = 0
    expansions: int = 0
    bytes_from_peers: int = 0

    def since(self, earlier: "Traffic") -> "Traffic":
        """The difference to an earlier copy of this record."""
        return Traffic(
            self.bytes_in - earlier.bytes_in,
            self.bytes_out - earlier.bytes_out,
            self.bytes_within - earlier.bytes_within,
            self.merges - earlier.merges,
            self.expansions - earlier.expansions,
            self.bytes_from_peers - earlier.bytes_from_peers,
        )

    def count(self, direction: Direction, nbytes: int) -> None:
        """Count a copy."""
        match direction:
            case "in":
                self.bytes_in += nbytes
            case "out":
                self.bytes_out += nbytes
            case "within":
                self.bytes_within += nbytes
            case "peer":
                self.bytes_from_peers += nbytes


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Host memory of exactly the requested size, flat uint8. Copies from pageable memory are slower
    and block the host.

    name: by which all ranks of the group have it, once, and of its entry on their board; without
    one it is this rank's own. Such memory is pinned by `pin`, once it is filled.
    """

    bytes: Tensor
    pinned: bool
    name: str | None = None


class Event(Protocol):
    """A point in a stream's work."""

    def synchronize(self) -> None:
        """Make the host wait until all work before this point is done."""


class Mark(Protocol):
    """A point in a stream's work whose time is kept."""

    def passed(self) -> float | None:
        """When the stream reached it, in seconds of the backend's clock; None if it has not yet."""


class MergeProgram(Protocol):
    """Merges prepared by a backend, to be executed repeatedly on the same memory."""


class Stream(Protocol):
    """A queue of work on the device. Every method returns at once."""

    def wait(self, event: Event) -> None:
        """Start later work only after the event."""

    def record(self) -> Event:
        """The point after all work so far."""

    def mark(self) -> Mark:
        """The same point, with its time."""

    def copy(self, target: Tensor, source: Tensor, direction: Direction) -> None:
        """Copy flat uint8 memory. Pageable host memory may make the host wait."""

    def merge(self, program: MergeProgram) -> None:
        """Execute prepared merges."""


class Task(Protocol):
    """A task of the reader thread."""

    def result(self) -> None:
        """Make the host wait until it is done; raises what it raised."""

    def exception(self) -> BaseException | None:
        """Make the host wait until it is done; returns what it raised."""


class Checks(Protocol):
    """Notifications by which a backend can check the rules. Real devices ignore them."""

    def lend(self, memory: Tensor) -> None:
        """Modules may read this memory from now on, in the compute stream."""

    def take_back(self, memory: Tensor) -> None:
        """Modules may no longer read this memory."""

    def in_step(self) -> AbstractContextManager[None]:
        """A sweep over blocks: the host must not wait for the device within it."""

    def host_writes(self, memory: Tensor) -> None:
        """The host is about to write this memory; all work on it must have been waited for."""


class NoChecks:
    """Checks nothing; see `Checks`."""

    def lend(self, memory: Tensor) -> None:
        pass

    def take_back(self, memory: Tensor) -> None:
        pass

    def in_step(self) -> AbstractContextManager[None]:
        return nullcontext()

    def host_writes(self, memory: Tensor) -> None:
        pass


class Backend(Protocol):
    """A device, owned by one manager. Not shared between threads, except for `read_ahead`."""

    name: str
    device: torch.device
    unified: bool  # whether device memory is host memory, which the host may write
    compute: Stream  # where modules run
    copies: Stream  # host to device, and back
    on_demand: Stream  # the same for urgent copies, which do not queue behind `copies`
    merges: Stream
    traffic: Traffic
    checks: Checks
    peers: Peers  # the group that the device belongs to, perhaps alone
    board: Board | None  # of the group; none where nothing can be shared

    def allocate(self, nbytes: int, again: Tensor | None = None) -> Tensor:
        """Allocate device memory [nbytes] uint8, aligned for the kernels. Raises OutOfMemory.

        again: freed memory of the same size, which may be returned: its views are valid again then.
        """

    def free(self, memory: Tensor) -> None:
        """Free device memory. The compute stream must be ordered after all use of it."""

    @property
    def bytes_for_peers(self) -> int:
        """Device memory allocated for peers, which statistics of torch's allocator leave out."""

    def allocate_for_peers(self, nbytes: int) -> Tensor:
        """Allocate device memory that other ranks may open. Raises OutOfMemory."""

    def export(self, memory: Tensor) -> bytes:
        """The handle by which other ranks open device memory that was allocated for them."""

    def open_peer(self, handle: bytes) -> Tensor:
        """Another rank's device memory, for copies from it. Raises DeviceFault."""

    def close_peer(self, memory: Tensor) -> None:
        """Let go of another rank's memory, once all copies from it are done."""

    def allocate_host(self, nbytes: int, pinned: bool, name: str | None = None) -> HostMemory:
        """Allocate host memory, pageable if not to be pinned or if refused. Raises OutOfMemory.

        name: with a board, that of memory that all ranks share. It may be filled already.
        """

    def pin(self, memory: HostMemory, fresh: bool) -> bool:
        """Pin memory that ranks share; returns whether it is. fresh: nobody has filled it yet."""

    def free_host(self, memory: HostMemory) -> None:
        """Free host memory once all work on it is done; the host may have to wait."""

    def prepare_merges(
        self,
        merges: Sequence[WeightMerge],
        copies: Sequence[tuple[Tensor, Tensor]],
        expansions: Sequence[Expansion] = (),
        quantisations: Sequence[Quantisation] = (),
    ) -> MergeProgram:
        """Prepare merges, after the copies (target, source) within the device and the expansions
        that go with them, and before the quantisations.
        """

    def computing(self) -> AbstractContextManager[None]:
        """Modules run on this device within it."""

    def read_ahead(self, task: Callable[[], None]) -> Task:
        """Execute tasks one after another, in parallel to the host, such as reading a file.

        A task may make its own thread wait for events.
        """

    def now(self) -> float:
        """The host's time in seconds, by the clock that marks have too."""

    def set_clock(self) -> None:
        """Synchronise the clocks of marks, which may drift; the host may wait."""

    def synchronize(self) -> None:
        """Make the host wait for all work."""

    def close(self) -> None:
        """Free everything."""
