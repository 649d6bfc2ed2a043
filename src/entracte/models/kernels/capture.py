"""Captured CUDA graphs of work on a module's weights: that work is one launch.

A graph reads weights and inputs at the addresses that it was captured with. So inputs are held in
memory that stays, and there is a graph for each place that weights are used at, which is replayed
for whatever lies there: what orders weights and their use stays outside, events between the
launches. What is made in between is in one pool, which all graphs share, as they run one by one.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import nn

from entracte.models.formats.products import Float8Linear
from entracte.models.transformer.linear import Linear

# Captures work on the device without carrying it out; what it returns carries it out.
Capture = Callable[[Callable[[], object]], Callable[[], None]]

# Graphs that are kept for inputs of one shape: more than a model's blocks have places.
GRAPHS = 128


class GraphCapture:
    """Captures CUDA graphs, which share their memory: one may run at a time."""

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def __call__(self, work: Callable[[], object]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            # Other threads may go on to allocate and copy.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            failed: AbstractContextManager[None] = suppress(RuntimeError)
            try:
                work()
                failed = nullcontext()
            finally:
                with failed:  # what failed is of more interest than that nothing was captured
                    graph.capture_end()
        replay: Callable[[], None] = graph.replay
        return replay


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a module's weights are, and what is done with them: all that a graph depends on.

    layout: the addresses of all tensors after the first one's.
    """

    weights: int
    layout: tuple[int, ...]
    kind: Hashable


class PlacedGraphs:
    """Graphs of work on inputs that stay where they are, with weights at different places."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._graphs: dict[_Place, Callable[[], None]] = {}
        self._warm: set[Hashable] = set()
        self._layouts: WeakKeyDictionary[nn.Module, tuple[int, ...] | None] = WeakKeyDictionary()

    def run(self, module: nn.Module, kind: Hashable, work: Callable[[], object]) -> None:
        """Do some work with a module's weights. kind: tells it from other work with them."""
        layout = self._layout(module)
        if layout is None or kind not in self._warm:
            # Kernels are compiled and chosen at their first call, which cannot be captured.
            self._warm.add(kind)
            work()
            return
        place = _Place(next(module.parameters()).data_ptr(), layout, kind)
        graph = self._graphs.get(place)
        if graph is None:
            if len(self._graphs) >= GRAPHS:
                del self._graphs[next(iter(self._graphs))]
            graph = self._graphs[place] = self._capture(work)
        graph()

    def _layout(self, module: nn.Module) -> tuple[int, ...] | None:
        """As in `_Place`; None where linears add something of their own, which may change."""
        if module not in self._layouts:
            linears = (each for each in module.modules() if isinstance(each, nn.Linear))
            plain = all(type(each) in (Linear, Float8Linear, nn.Linear) for each in linears)
            first, *others = (each.data_ptr() for each in module.parameters())
            layout = tuple(each - first for each in others)
            self._layouts[module] = layout if plain else None
        return self._layouts[module]
