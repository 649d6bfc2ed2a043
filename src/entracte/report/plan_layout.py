"""The layout of a plan's picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from entracte.planner.prediction import StagePrediction

from .svg import LETTER

ACTIVATIONS = "activations"

LEFT, RIGHT = 56, 72  # room for the axis, and for the name of the limit
LEAST_WIDTH = 62  # of a stage: a word of its name
WIDTH = 960  # of all stages, unless they need more
LEAST_HATCH = 0.5
HEIGHT = 300


@dataclass(frozen=True, slots=True)
class StageColumn:
    """The position of a stage."""

    stage: StagePrediction
    x: float
    width: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def waiting(self) -> float:
        """How much of the width stands for waiting; 0 if too narrow to see."""
        if self.stage.seconds <= 0:
            return 0.0
        share = self.width * min(1.0, self.stage.stall_s / self.stage.seconds)
        return share if share >= LEAST_HATCH else 0.0


@dataclass(frozen=True, slots=True)
class ByteScale:
    """bottom: where 0 bytes are. top_bytes: what the whole height stands for."""

    bottom: float
    top_bytes: float

    def y(self, nbytes: float) -> float:
        return self.bottom - HEIGHT * nbytes / self.top_bytes


def stacking(stages: Sequence[StagePrediction]) -> list[str]:
    """The components in the order of the stack: first what stays, then what comes and goes."""
    names = dict.fromkeys(name for stage in stages for name in stage.weights)
    held = {name: [stage.weights.get(name, 0) for stage in stages] for name in names}
    return sorted(names, key=lambda name: (-min(held[name]), -max(held[name]), name))


def columns_of(stages: Sequence[StagePrediction]) -> tuple[list[StageColumn], float]:
    """Widths in proportion to seconds, but for stages too short for that, and the seconds below
    which they are.
    """
    total = max(WIDTH, LEAST_WIDTH * len(stages))
    long = set(range(len(stages)))
    while True:
        left = total - LEAST_WIDTH * (len(stages) - len(long))
        time = sum(stages[number].seconds for number in long)
        short = {n for n in long if stages[n].seconds * left < LEAST_WIDTH * time or not time}
        if not short:
            break
        long -= short
    columns, x = [], float(LEFT)
    for number, stage in enumerate(stages):
        width = left * stage.seconds / time if number in long else float(LEAST_WIDTH)
        columns.append(StageColumn(stage, x, width))
        x += width
    return columns, LEAST_WIDTH * time / left if long and len(long) < len(stages) else 0.0


def layers(stage: StagePrediction, names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """What is stacked over a stage: what it is, how much is below it, and its bytes."""
    below = 0
    for name in (*names, ACTIVATIONS):
        nbytes = stage.activations if name == ACTIVATIONS else stage.weights.get(name, 0)
        if nbytes:
            yield name, below, nbytes
        below += nbytes


def lines(name: str) -> list[str]:
    """A stage's name in lines that fit the least width, where its words do."""
    found: list[str] = []
    for word in name.split():
        if found and LETTER * len(f"{found[-1]} {word}") < LEAST_WIDTH - 4:
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found or [name]
