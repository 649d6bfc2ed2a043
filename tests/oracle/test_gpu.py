"""On a GPU the recorded forwards are met by every way of running blocks; graphs keep the bits."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from entracte import Engine
from entracte.models.kernels.capture import GraphCapture
from entracte.models.kernels.graphs import AudioStream, CapturedBlocks
from entracte.models.transformer import StreamInput, Transformer
from entracte.models.transformer.execution import BlockLoop, RunBlocks, run_blocks

from .oracle import BFLOAT16, CASES, Oracle, distance

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def on_gpu(transformer: Transformer) -> Transformer:
    yield transformer.to(CUDA)
    transformer.to("cpu")


def moved(stream: StreamInput) -> StreamInput:
    rotary = replace(
        stream.rotary,
        own=stream.rotary.own.to(CUDA, torch.bfloat16),
        cross=stream.rotary.cross.to(CUDA, torch.bfloat16),
    )
    return replace(
        stream,
        latent=stream.latent.to(CUDA).contiguous(),
        timesteps=stream.timesteps.to(CUDA),
        sigma=stream.sigma.to(CUDA),
        contexts=stream.contexts.to(CUDA),
        rotary=rotary,
    )


@pytest.mark.parametrize("rows_at_once", [1, 4])
@pytest.mark.parametrize("name", CASES)
def test_forwards(
    oracle: Oracle, engine: Engine, on_gpu: Transformer, name: str, rows_at_once: int
) -> None:
    from entracte.models.kernels.elementwise import FusedElementwise  # where there is Triton

    phase = engine.prepare(oracle.request(name)).resolved.phases[0]
    passes = list(phase.guidance.passes().values())
    with torch.device("cpu"):
        given = oracle.inputs(f"{name}.forward.0", on_gpu, oracle.contexts(name))
    inputs = [moved(each) for each in given]

    def forward(run: RunBlocks) -> list[Tensor]:
        velocities = on_gpu(*inputs, passes, rows_at_once=rows_at_once, run=run)
        return [tensor.cpu() for each in velocities for tensor in (each.video, each.audio)]

    fused, captured = (
        BlockLoop(FusedElementwise()).run,
        CapturedBlocks(FusedElementwise(), GraphCapture(CUDA), AudioStream(CUDA)).run,
    )
    expected = [
        oracle[f"{name}.forward.{number}.{stream}.velocity"]
        for number in range(len(passes))
        for stream in ("video", "audio")
    ]
    made = forward(fused)
    for kind in (made, forward(run_blocks)):
        for ours, theirs in zip(kind, expected, strict=True):
            assert distance(ours, theirs) < BFLOAT16
    for _ in range(3):  # compiles, captures, replays
        assert all(map(torch.equal, forward(captured), made))
