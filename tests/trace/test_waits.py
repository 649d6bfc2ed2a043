"""What a stretch of time consists of."""

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from entracte.trace.waits import Exposure, parts_of

NAMES = ("copy", "merge", "read", "launch", "exchange", "host")
CAUSES = st.sampled_from(NAMES)
TIMES = st.integers(0, 100)


@st.composite
def apart(draw: st.DrawFn) -> list[Exposure]:
    """Exposures that do not overlap, in any order."""
    ends = sorted(draw(st.sets(TIMES, max_size=12)))
    pairs = zip(ends[::2], ends[1::2], strict=False)
    found = [Exposure(begin, end, draw(CAUSES)) for begin, end in pairs]
    return draw(st.permutations(found))


@given(apart(), TIMES, TIMES, st.booleans())
def test_parts_add_up_to_the_whole(
    exposures: list[Exposure], one: int, other: int, of_host: bool
) -> None:
    begin, end = sorted((one, other))
    parts = parts_of(begin, end, exposures, of_host)
    assert abs(parts.total - (end - begin)) < 1e-9
    assert min(asdict(parts).values()) >= 0
    assert not (of_host and parts.compute)


@given(apart())
def test_every_cause_has_its_own_time(exposures: list[Exposure]) -> None:
    parts = parts_of(0, 100, exposures, of_host=False)
    for cause in NAMES:
        expected = sum(each.end - each.begin for each in exposures if each.cause == cause)
        assert asdict(parts)[cause] == expected


def test_what_lies_outside_counts_elsewhere() -> None:
    wait = Exposure(5, 25, "copy")
    assert parts_of(0, 10, [wait], of_host=False).copy == 5
    assert parts_of(10, 20, [wait], of_host=False).copy == 10
    assert parts_of(20, 30, [wait], of_host=False).copy == 5


def test_waits_counted_twice_do_not_close() -> None:
    twice = [Exposure(2, 6, "copy"), Exposure(4, 8, "merge")]
    parts = parts_of(0, 10, twice, of_host=False)
    assert parts.compute == 4
    assert parts.total == 12


@given(st.floats(0, 1))
def test_exchange_is_a_share_of_computing(share: float) -> None:
    parts = parts_of(0, 10, [Exposure(2, 6, "copy")], of_host=False)
    exchanging = parts.exchanging(share)
    assert abs(exchanging.exchange - 6 * share) < 1e-9
    assert abs(exchanging.total - parts.total) < 1e-9
    assert exchanging.copy == parts.copy
