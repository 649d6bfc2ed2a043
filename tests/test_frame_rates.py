from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entracte import Request
from entracte.config.generate import GenerateSettings
from entracte.errors import RequestError
from entracte.frame_rates import exact_rate


@pytest.mark.parametrize(
    ("nominal", "written"),
    [
        (12, (11.988, 11.99)),
        (15, (14.985,)),
        (24, (23.976, 23.98, 23.97602, 23.976023976)),
        (30, (29.97, 29.97003)),
        (48, (47.952, 47.95)),
        (60, (59.94, 59.9401)),
        (72, (71.928,)),
        (90, (89.91,)),
        (120, (119.88, 119.8801)),
        (240, (239.76,)),
    ],
)
def test_ntsc_rates(nominal: int, written: tuple[float, ...]) -> None:
    exact = Fraction(nominal * 1000, 1001)
    for rate in (*written, float(exact), exact, str(exact), f"{nominal * 1000}/1001"):
        found = Request(prompt="a", frame_rate=rate).frame_rate
        assert found == float(exact)
        assert exact_rate(found) == exact


@pytest.mark.parametrize(
    ("rate", "exact"), [(24, 24), (25, 25), (12.5, "25/2"), (0.5, "1/2"), (24.975, "999/40")]
)
def test_other_rates_are_what_they_say(rate: float, exact: str | int) -> None:
    assert exact_rate(rate) == Fraction(exact)
    assert Request(prompt="a", frame_rate=rate).frame_rate == rate


@given(st.integers(1, 240))
def test_whole_rates_stay(rate: int) -> None:
    assert exact_rate(rate) == rate


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ("24000/0", "fraction such as 24000/1001"),
        ("1e9/1e9", "fraction such as"),
        ("fast", "fraction such as"),
        ("", "fraction such as"),
        ("9" * 10 + "/1", "fraction such as"),
        ("1e999999999", "finite"),
        ("nan", "finite"),
        ("-24000/1001", "fraction such as"),
        ("0", "must be at least 0.1"),
        (0.09, "must be at least 0.1"),
        (240.5, "must be at most 240"),
        ("900/1", "must be at most 240"),
        (10**400, "frame_rate"),
        ([24], "frame_rate"),
    ],
)
def test_what_is_no_rate(rate: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Request(prompt="a", frame_rate=rate)


def test_settings_take_fractions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTRACTE_FRAME_RATE", "30000/1001")
    assert GenerateSettings().frame_rate == 30000 / 1001
    assert GenerateSettings(frame_rate="24").frame_rate == 24.0
