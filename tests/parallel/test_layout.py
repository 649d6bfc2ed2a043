"""Layouts: how ranks may share out a phase."""

import pytest

from entracte.parallel import Layout, default_layout, layouts

HEADS = (32, 32)


@pytest.mark.parametrize(
    ("ranks", "heads", "expected"),
    [
        (1, HEADS, ["1x1"]),
        (2, HEADS, ["2x1", "1x2"]),
        (3, HEADS, ["3x1"]),
        (4, HEADS, ["4x1", "2x2", "1x4"]),
        (6, HEADS, ["6x1", "3x2"]),
        (8, (8, 4), ["8x1", "4x2", "2x4"]),
    ],
)
def test_rows_share_out_heads(ranks: int, heads: tuple[int, int], expected: list[str]) -> None:
    assert list(map(str, layouts(ranks, heads))) == expected


def test_what_no_plan_has_chosen() -> None:
    assert default_layout("auto", 4, HEADS) == Layout(1, 4)
    assert default_layout("sequence", 6, HEADS) == Layout(3, 2)
    assert default_layout("guidance", 4, HEADS) == Layout(4, 1)
    assert default_layout("off", 1, HEADS) == Layout(1, 1)
    with pytest.raises(ValueError, match="2 ranks make a video together, and parallel is off"):
        default_layout("off", 2, HEADS)
