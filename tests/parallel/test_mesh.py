"""A denoiser over several devices makes on each of them what it makes on one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from entracte import Guidance
from entracte.models.connectors import TextContext
from entracte.models.transformer import (
    Evaluate,
    Pass,
    Rotary,
    StreamInput,
    StreamRotary,
    TokenRun,
    Transformer,
    TransformerConfig,
)
from entracte.parallel import Layout, Mesh, SpreadTransformer
from entracte.parallel.mesh import share_passes
from entracte.parallel.sequence import part_of, shares
from entracte.sampling.denoiser import UNGUIDED, Denoiser, GuidancePlan
from entracte.sampling.tokens import (
    StreamLatents,
    Tokens,
    VideoGrid,
    append_tokens,
    audio_spans,
    plain_tokens,
    replace_first_frame,
)
from entracte.synthetic import demo_config

from .threads import on_ranks

CPU = torch.device("cpu")
GRID = VideoGrid(2, 3, 3, 24.0)  # 18 tokens, which four ranks share unevenly
AUDIO = 5
GUIDANCE = Guidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7, stg_blocks=(2,))
GUIDED = GuidancePlan(GUIDANCE, GUIDANCE)


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig.from_header(demo_config.TRANSFORMER))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False).normal_(0, 0.02 if "weight" in name else 0.1)
    return model.eval()


@dataclass(frozen=True)
class Inputs:
    """What a denoiser is made of, and what it is given."""

    video: Tokens
    audio: Tokens
    contexts: list[TextContext]
    rotary: tuple[StreamRotary, StreamRotary]
    plan: GuidancePlan

    def estimate(self, evaluate: Evaluate) -> StreamLatents:
        denoiser = Denoiser(
            evaluate, self.video, self.audio, self.contexts, self.rotary, self.plan, rows_at_once=2
        )
        noisy = StreamLatents(self.video.latent, self.audio.latent)
        return denoiser(noisy, torch.tensor([0.7]))


def inputs(model: Transformer, plan: GuidancePlan, image: str) -> Inputs:
    torch.manual_seed(1)
    video = plain_tokens(torch.randn(1, GRID.tokens, 128), GRID.spans())
    audio = plain_tokens(torch.randn(1, AUDIO, 128), audio_spans(AUDIO))
    frame = torch.full((1, GRID.frame_tokens, 128), 0.5)
    if image == "first":
        video = replace_first_frame(video, frame, 1.0)
    if image == "appended":
        video = append_tokens(video, frame, 0.7, GRID.frame_spans(8))
    contexts = [
        TextContext(torch.randn(1, 16, 128), torch.randn(1, 16, 64))
        for _ in range(2 if "unconditioned" in plan.passes() else 1)
    ]
    rotary = model.rotary(video.positions, audio.positions, CPU, torch.float32)
    return Inputs(video, audio, contexts, rotary, plan)


def distance(made: Tensor, expected: Tensor) -> float:
    return float((made - expected).norm() / expected.norm())


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("size", "row", "plan", "image"),
    [
        (2, 2, UNGUIDED, ""),
        (4, 4, UNGUIDED, "first"),
        (4, 4, UNGUIDED, "appended"),
        (2, 2, GUIDED, "appended"),
        (2, 1, GUIDED, ""),
        (3, 1, GUIDED, "first"),
        (4, 2, GUIDED, "appended"),
        (4, 1, GUIDED, ""),
        (2, 1, UNGUIDED, "first"),
    ],
)
def test_every_device_makes_what_one_makes(
    model: Transformer, size: int, row: int, plan: GuidancePlan, image: str
) -> None:
    asked = inputs(model, plan, image)

    def work(mesh: Mesh) -> StreamLatents:
        return asked.estimate(SpreadTransformer(model, mesh, Layout(size // row, row)))

    with torch.inference_mode():
        expected = asked.estimate(model)
    first, *others = on_ranks(size, work)
    assert distance(first.video, expected.video) < 1e-5
    assert distance(first.audio, expected.audio) < 1e-5
    for other in others:
        assert torch.equal(other.video, first.video)
        assert torch.equal(other.audio, first.audio)


def test_heads_that_cannot_be_shared_out(model: Transformer) -> None:
    def work(mesh: Mesh) -> None:
        with pytest.raises(ValueError, match="3 devices cannot share out 4 attention heads"):
            SpreadTransformer(model, mesh, Layout(1, 3))
        with pytest.raises(ValueError, match="3 devices cannot be 2x1"):
            SpreadTransformer(model, mesh, Layout(2, 1))

    on_ranks(3, work)


PASSES = list(GUIDED.passes().values())
PLAIN, NEGATIVE, SKIPPING, ISOLATED = PASSES
LAYERS = 48


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1, [[PLAIN, NEGATIVE, SKIPPING, ISOLATED]]),
        # A pass that skips is cheap beside its twin only.
        (2, [[PLAIN, SKIPPING], [NEGATIVE, ISOLATED]]),
        (3, [[PLAIN, SKIPPING], [NEGATIVE], [ISOLATED]]),
        (4, [[PLAIN], [NEGATIVE], [SKIPPING], [ISOLATED]]),
    ],
)
def test_passes_are_shared_out_by_what_they_cost(rows: int, expected: list[list[Pass]]) -> None:
    found = share_passes([*PASSES[:2], Pass(skip_video=frozenset([28])), ISOLATED], rows, LAYERS)
    late = Pass(skip_video=frozenset([28]))
    wanted = [[late if each is SKIPPING else each for each in row] for row in expected]
    assert sorted(map(_names, found)) == sorted(map(_names, wanted))


def timesteps(runs: Sequence[TokenRun]) -> list[int]:
    """Of every token."""
    return [run.timestep for run in runs for _ in range(run.start, run.stop)]


def _names(row: list[Pass]) -> list[str]:
    return sorted(map(str, row))


def test_rows_beyond_the_passes_make_them_again() -> None:
    assert share_passes([PLAIN], 2, LAYERS) == [[PLAIN], [PLAIN]]


@given(tokens=st.integers(8, 400), ranks=st.integers(1, 8), data=st.data())
def test_parts_are_the_whole_in_order(tokens: int, ranks: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, tokens - 1), max_size=4)))
    edges = [0, *cuts, tokens]
    runs = tuple(TokenRun(a, b, n) for n, (a, b) in enumerate(pairwise(edges)))
    angles = torch.arange(tokens).float()[:, None, None]
    whole = StreamInput(
        latent=torch.arange(tokens).float()[None, :, None],
        timesteps=torch.zeros(len(runs)),
        runs=runs,
        sigma=torch.zeros(1),
        contexts=torch.zeros(1, 1, 1),
        rotary=StreamRotary(Rotary(angles, -angles), Rotary(2 * angles, 3 * angles)),
    )
    counts = shares(tokens, ranks)
    assert max(counts) - min(counts) <= 1
    parts = [part_of(whole, rank, counts) for rank in range(ranks)]
    assert [part.latent.shape[1] for part in parts] == counts
    assert torch.equal(torch.cat([part.latent for part in parts], dim=1), whole.latent)
    for of in (attrgetter("own"), attrgetter("cross")):
        tables = [of(part.rotary) for part in parts]
        assert torch.equal(torch.cat([each.cos for each in tables]), of(whole.rotary).cos)
        assert torch.equal(torch.cat([each.sin for each in tables]), of(whole.rotary).sin)
    assert [n for part in parts for n in timesteps(part.runs)] == timesteps(runs)
    assert all(part.runs[0].start == 0 for part in parts)
