"""Runs of a peer: what is measured of them, and what compilation adds."""

import pytest
import torch

from entracte.bench.diffusers_result import DiffusersResult
from entracte.bench.peers import measure_compiled, measure_eager

LATENTS = {"a": torch.ones(4)}


def results(*seconds: float) -> list[DiffusersResult]:
    return [
        DiffusersResult(
            stages=[("denoise", each - 1), ("refine", 0.5), ("refine", 0.25)],
            steps={"denoise": [each / 2, each / 2]},
            seconds=each,
            peak_bytes=int(each),
            latents=LATENTS,
            frames=torch.zeros(1),
            audio=torch.zeros(1),
        )
        for each in seconds
    ]


def test_warm_ups_do_not_count() -> None:
    said: list[str] = []
    runs = iter(results(90, 4, 6, 5))
    found = measure_eager("eager", lambda: next(runs), LATENTS, 1, 3, said.append)
    assert said == ["warm-up", "run 1 of 3", "run 2 of 3", "run 3 of 3"]
    assert found.end_to_end == 5
    assert found.stages == {"denoise": 4, "refine": 0.75}
    assert found.steps == {"denoise": 2.5}
    assert found.peak_bytes == 6
    assert found.distances == {"a": 0.0}
    assert found.compiling is None


def test_compilation_is_told_apart() -> None:
    runs = iter(results(40, 7, 5, 5))
    found = measure_compiled("compiled", lambda: next(runs), LATENTS, 1, 2, lambda _: None)
    assert found.end_to_end == 5
    assert found.compiling == 35


def test_what_cannot_be_compiled_is_told() -> None:
    def fail() -> DiffusersResult:
        raise RuntimeError("no such kernel\nand many lines more")

    found = measure_compiled("compiled", fail, LATENTS, 1, 2, lambda _: None)
    assert found.failed == "RuntimeError: no such kernel"
    with pytest.raises(RuntimeError):
        measure_eager("eager", fail, LATENTS, 1, 2, lambda _: None)
