"""Corrects predictions by how long earlier videos took, compared with their predictions."""

import threading
from collections import deque
from statistics import median

# Only the latest count: the machine, or its load, may have changed.
REMEMBERED = 7


class LatencyCorrection:
    """Scales by the median of measured over predicted time; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ratios: deque[float] = deque(maxlen=REMEMBERED)

    def learn(self, predicted: float | None, took: float) -> None:
        """A video took so many seconds. predicted: as the planner did, before any correction."""
        if predicted is not None and predicted > 0:
            with self._lock:
                self._ratios.append(took / predicted)

    def corrected(self, predicted: float | None) -> float | None:
        with self._lock:
            if predicted is None or not self._ratios:
                return predicted
            return predicted * median(self._ratios)
