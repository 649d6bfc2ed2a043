"""How the transformer's work in one phase is shared out over ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# auto: a layout for each phase, the quickest. off: one rank makes a video alone. guidance: rows
# share the passes, and no rank's products have another shape than on one. sequence: ranks share the
# video's tokens.
Parallel = Literal["auto", "off", "guidance", "sequence"]


@dataclass(frozen=True, slots=True)
class Layout:
    """`rows` rows of ranks share the guidance passes; the `row` ranks of each the video's tokens.

    Rank r is number r % row of row r // row. Where there are more rows than passes, some make the
    same passes.
    """

    rows: int
    row: int

    @property
    def ranks(self) -> int:
        return self.rows * self.row

    def __str__(self) -> str:
        return f"{self.rows}x{self.row}"


ONE_RANK = Layout(1, 1)


def layouts(ranks: int, heads: Sequence[int]) -> list[Layout]:
    """All layouts of so many ranks: those that share out more passes come first.

    heads: of attention, in each stream; a row has to share them out evenly.
    """
    rows = (row for row in range(1, ranks + 1) if ranks % row == 0)
    return [Layout(ranks // row, row) for row in rows if all(each % row == 0 for each in heads)]


def default_layout(parallel: Parallel, ranks: int, heads: Sequence[int]) -> Layout:
    """The layout of a phase that no plan has chosen: as many tokens shared out as can be, or,
    for `guidance`, none.

    Raises ValueError for `off` with several ranks.
    """
    found = layouts(ranks, heads)
    if parallel == "off" and ranks > 1:
        raise ValueError(f"{ranks} ranks make a video together, and parallel is off")
    return found[0] if parallel == "guidance" else found[-1]
