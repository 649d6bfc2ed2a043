"""Exchange through peer memory makes what one device makes, with memory that threads share."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from entracte.models.transformer import (
    HeadRoom,
    Pass,
    StreamInput,
    TokenRun,
    Transformer,
    TransformerConfig,
    Velocity,
)
from entracte.parallel import Mesh, Ranks
from entracte.parallel.row_exchange import AUDIO, VIDEO, RowExchange, slots_of
from entracte.parallel.sequence import part_of, shares
from entracte.synthetic import demo_config

from .threads import on_ranks

CPU = torch.device("cpu")
AUDIO_TOKENS, TEXT = 5, 16


@dataclass
class ThreadMemory:
    """One thread's view of memory that all threads have."""

    ranks: Ranks
    memory: list[Tensor]
    barriers: dict[int, threading.Barrier]
    device: torch.device = CPU
    meetings: list[int] = field(default_factory=list)

    def view(self, rank: int, start: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        nbytes = torch.Size(shape).numel() * dtype.itemsize
        return self.memory[rank][start : start + nbytes].view(dtype).view(*shape)

    def copy(self, x: Tensor, to: HeadRoom) -> None:
        for part, given in zip(to.parts, x, strict=True):
            part.copy_(given.view(part.shape))

    def meet(self, meeting: int) -> None:
        self.meetings.append(meeting)
        self.barriers[meeting].wait(60)

    def break_off(self) -> None:
        raise NotImplementedError


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig.from_header(demo_config.TRANSFORMER))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False).normal_(0, 0.02 if "weight" in name else 0.1)
    return model.eval()


def streams(model: Transformer, tokens: int) -> tuple[StreamInput, StreamInput]:
    torch.manual_seed(1)
    video, audio = model.config.video, model.config.audio
    rotary = model.rotary(torch.rand(3, tokens), torch.rand(1, AUDIO_TOKENS), CPU, torch.float32)
    sigma = torch.tensor([0.7])

    def stream(count: int, of: int, contexts: int, angles: object, runs: list[TokenRun]):  # type: ignore[no-untyped-def]
        times = torch.linspace(0.7, 0.1, len(runs))
        texts = torch.randn(2, TEXT, contexts)
        return StreamInput(torch.randn(1, count, of), times, runs, sigma, texts, angles)  # type: ignore[arg-type]

    runs = [TokenRun(0, 3, 0), TokenRun(3, tokens, 1)]
    return (
        stream(tokens, video.in_channels, video.context_dim, rotary[0], runs),
        stream(
            AUDIO_TOKENS,
            audio.in_channels,
            audio.context_dim,
            rotary[1],
            [TokenRun(0, AUDIO_TOKENS, 0)],
        ),
    )


PASSES = [Pass(), Pass(context=1), Pass(skip_video=frozenset([1])), Pass(isolated=True)]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("size", "tokens"), [(2, 18), (4, 18), (4, 16)])
@pytest.mark.parametrize(
    ("passes", "rows"), [(PASSES, 4), (PASSES, 2), (PASSES[:1], 1), (PASSES[3:], 1)]
)
def test_every_rank_makes_what_one_makes(
    model: Transformer, size: int, tokens: int, passes: list[Pass], rows: int
) -> None:
    video, audio = streams(model, tokens)
    counts = shares(tokens, size)
    barriers = {meeting: threading.Barrier(size) for meeting in (VIDEO, AUDIO)}
    memory: list[Tensor] = []
    made_ready = threading.Barrier(size)

    def work(mesh: Mesh) -> tuple[list[Velocity], list[int]]:
        ranks = mesh.everyone
        slots, nbytes = slots_of(
            model.config, size, rows, tokens, AUDIO_TOKENS, (2, TEXT), torch.float32.itemsize
        )
        if ranks.rank == 0:
            memory.extend(torch.full((nbytes,), 0xFF, dtype=torch.uint8) for _ in range(size))
        made_ready.wait(60)
        mine = ThreadMemory(ranks, memory, barriers)
        exchange = RowExchange(mine, counts, slots)
        part = part_of(video, ranks.rank, counts)
        return model(part, audio, passes, rows, exchange=exchange), mine.meetings

    with torch.inference_mode():
        expected = model(video, audio, passes, rows)
    (first, meetings), *others = on_ranks(size, work)
    for made, one in zip(first, expected, strict=True):
        torch.testing.assert_close(made.video, one.video, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(made.audio, one.audio, rtol=1e-4, atol=1e-5)
    for other, held in others:
        assert held == meetings
        for made, one in zip(other, first, strict=True):
            assert torch.equal(made.video, one.video)
            assert torch.equal(made.audio, one.audio)
