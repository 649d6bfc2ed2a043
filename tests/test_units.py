"""Bytes and seconds in words."""

import pytest

from entracte.units import GIB, MIB, duration, mebibytes, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.00042, "0.42 ms"),
        (0.0204, "20 ms"),
        (1.25, "1.25 s"),
        (119.9, "119.90 s"),
        (800, "13 min 20 s"),
        (7199.6, "2 h 0 min"),
        (30_000, "8 h 20 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [(999, "999 bytes"), (1000, "1.0 kB"), (23.52e9, "23.5 GB"), (1.41e12, "1,410.0 GB")],
)
def test_sizes(nbytes: float, words: str) -> None:
    assert size(nbytes) == words


def test_sizes_with_more_digits() -> None:
    assert size(12_345_678, 2) == "12.35 MB"


def test_limits_are_told_as_they_are_set() -> None:
    assert mebibytes(50 * MIB) == "50 MiB"
    assert mebibytes(GIB) == "1024 MiB"
    assert mebibytes(1.5 * MIB) == "1.5 MiB"
