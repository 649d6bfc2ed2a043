"""What is trained in batches is what the engine computes for one sample."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training.flow import Stream, angles, velocities
from training.loop import Run
from training.sampling import Guided, sample
from training.sizes import TRANSFORMER
from training.text import TextSide, new_tokenizer, token_ids
from training.transformer import SMOKE, Place, fit

from entracte.models.connectors import TextContext
from entracte.models.transformer import Pass, StreamInput, TokenRun, Transformer, TransformerConfig
from entracte.recipes import Guidance
from entracte.sampling.denoiser import Denoiser, GuidancePlan
from entracte.sampling.samplers import SAMPLERS
from entracte.sampling.tokens import StreamLatents, VideoGrid, audio_spans, plain_tokens

CHECKPOINTS = Path(__file__).parents[2] / "training" / "checkpoints"
GRID = VideoGrid(2, 2, 3, 24.0)
SOUND = 7
WIDTHS = (TRANSFORMER["cross_attention_dim"], TRANSFORMER["audio_cross_attention_dim"])


def random_weights(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig.from_header(TRANSFORMER | {"num_layers": 2})
    made = Transformer(config)
    random_weights(made)
    return made.eval()


def of_engine(
    transformer: Transformer, video: Stream, audio: Stream, row: int, which: Pass
) -> tuple[Tensor, Tensor]:
    rotary = transformer.rotary(
        GRID.spans().mean(-1), audio_spans(SOUND).mean(-1), torch.device("cpu"), torch.float32
    )
    held = int(video.held.sum())
    runs = [TokenRun(0, held, 1), TokenRun(held, GRID.tokens, 0)] if held else []
    inputs = [
        StreamInput(
            stream.latent[row : row + 1],
            stream.levels[row],
            runs or [TokenRun(0, stream.latent.shape[1], 0)],
            stream.levels[row, :1],
            stream.context[row : row + 1],
            at,
        )
        for stream, at, runs in zip((video, audio), rotary, (runs, []), strict=True)
    ]
    with torch.inference_mode():
        (made,) = transformer(inputs[0], inputs[1], [which])
    return made.video[0], made.audio[0]


@pytest.mark.parametrize("first_frame", [False, True])
def test_velocities_are_the_engines(transformer: Transformer, first_frame: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    video_at, audio_at = angles(transformer, GRID.spans(), SOUND, torch.device("cpu"))
    levels = torch.tensor([[0.9, 0.2], [0.3, 0.0], [0.7, 0.7]])
    held = torch.zeros(GRID.tokens)
    held[: GRID.frame_tokens] = float(first_frame)
    streams = [
        Stream(
            torch.randn(3, tokens, 128, generator=generator),
            levels,
            mask,
            torch.randn(3, 1024, width, generator=generator),
            *at,
        )
        for tokens, mask, width, at in zip(
            (GRID.tokens, SOUND),
            (held, torch.zeros(SOUND)),
            WIDTHS,
            (video_at, audio_at),
            strict=True,
        )
    ]
    joined = torch.tensor([True, False, True])
    skipped = torch.tensor([[False] * 3, [False, False, True]])
    with torch.no_grad():
        made = velocities(transformer, streams[0], streams[1], joined, skipped)
    skipping = frozenset({1})
    for row, which in enumerate([Pass(), Pass(isolated=True), Pass(0, skipping, skipping)]):
        wanted = of_engine(transformer, streams[0], streams[1], row, which)
        for ours, theirs in zip(made, wanted, strict=True):
            torch.testing.assert_close(ours[row], theirs, rtol=1e-3, atol=1e-4)


def test_samples_are_the_engines(transformer: Transformer) -> None:
    device = torch.device("cpu")
    video_at, audio_at = angles(transformer, GRID.spans(), SOUND, device)
    contexts = [torch.randn(4, 1024, width) for width in WIDTHS]
    guided = Guidance(cfg=3.0, stg=1.0, stg_blocks=(1,), modality=2.0, rescale=0.7)
    sigmas = torch.tensor([1.0, 0.6, 0.0])
    made = sample(
        transformer,
        Place(GRID, video_at, audio_at),
        (contexts[0], contexts[1]),
        sigmas,
        Guided(guided, guided),
        torch.Generator().manual_seed(3),
    )
    generator = torch.Generator().manual_seed(3)
    noise = [torch.randn(2, n, 128, generator=generator) for n in (GRID.tokens, SOUND)]
    rotary = transformer.rotary(
        GRID.spans().mean(-1), audio_spans(SOUND).mean(-1), device, torch.float32
    )
    for row in range(2):
        denoiser = Denoiser(
            transformer,
            plain_tokens(noise[0][row : row + 1], GRID.spans()),
            plain_tokens(noise[1][row : row + 1], audio_spans(SOUND)),
            [TextContext(*(each[at : at + 1] for each in contexts)) for at in (row, row + 2)],
            rotary,
            GuidancePlan(guided, guided),
            4,
        )
        start = StreamLatents(noise[0][row : row + 1], noise[1][row : row + 1])
        with torch.inference_mode():
            wanted = SAMPLERS["euler"].loop(denoiser, start, sigmas, 0, lambda *_: None)
        torch.testing.assert_close(made[0][row : row + 1], wanted.video, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(made[1][row : row + 1], wanted.audio, rtol=1e-2, atol=1e-2)


def test_contexts_are_the_engines() -> None:
    torch.manual_seed(0)
    text = TextSide().eval()
    random_weights(text)
    tokenizer = new_tokenizer(200)
    prompts = ["A red ball bounces at dusk.", "", "a blue cube"]
    with torch.no_grad():
        made = text(token_ids(tokenizer, prompts))
        for row, prompt in enumerate(prompts):
            states = text.encoder(torch.tensor(tokenizer.encode(prompt).ids))
            wanted = text.connectors(states)
            torch.testing.assert_close(made[0][row], wanted.video[0], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(made[1][row], wanted.audio[0], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_smoke_run_goes_on_where_it_ended(tmp_path: Path) -> None:
    for name in ("video_vae", "audio_vae"):
        shutil.copy(CHECKPOINTS / f"{name}.safetensors", tmp_path)
    run = Run(tmp_path, 10.0, 1, torch.device("cpu"), 0, smoke=True)
    for _ in range(2):
        fit(run, SMOKE)
    logged = [json.loads(line) for line in (tmp_path / "transformer.log").read_text().splitlines()]
    assert [line["step"] for line in logged] == [1, 2]
    assert all(0 < line["video_0.75"] < 3 for line in logged)
    assert (tmp_path / "transformer.png").exists()
