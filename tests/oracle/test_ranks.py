"""Ranks that share tokens and passes against every recorded forward of the official code."""

from dataclasses import replace

import pytest
import torch

from entracte import Engine
from entracte.models.transformer import Transformer, Velocity, run_blocks
from entracte.parallel import Layout, Mesh, SpreadTransformer, layouts

from ..parallel.threads import on_ranks
from .oracle import BFLOAT16, CASES, Oracle, distance

LAYOUTS = Layout(1, 2), Layout(2, 1), Layout(2, 2), Layout(1, 4)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "layout", [Layout(1, 2), Layout(2, 1), Layout(2, 2), Layout(1, 4)], ids=str
)
@pytest.mark.parametrize("name", CASES)
def test_forwards(
    oracle: Oracle, engine: Engine, transformer: Transformer, name: str, layout: Layout
) -> None:
    heads = transformer.config.video.heads, transformer.config.audio.heads
    assert layout in layouts(layout.ranks, heads)
    phase = engine.prepare(oracle.request(name)).resolved.phases[0]
    guided = name != "distilled"
    passes = list(phase.guidance.passes().values())
    inputs = list(oracle.inputs(f"{name}.forward.0", transformer, oracle.contexts(name)))
    if guided:
        inputs[0] = replace(inputs[0], latent=inputs[0].latent.contiguous())

    def work(mesh: Mesh) -> list[Velocity]:
        spread = SpreadTransformer(transformer, mesh, layout)
        return spread(*inputs, passes, len(passes), run_blocks)

    first, *others = on_ranks(layout.ranks, work)
    for number, velocity in enumerate(first):
        expected = f"{name}.forward.{number}"
        assert distance(velocity.video, oracle[f"{expected}.video.velocity"]) < BFLOAT16
        assert distance(velocity.audio, oracle[f"{expected}.audio.velocity"]) < BFLOAT16
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            assert torch.equal(mine.video, theirs.video)
            assert torch.equal(mine.audio, theirs.audio)
