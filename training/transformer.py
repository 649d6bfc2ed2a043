"""Train text side and transformer together: `python -m training.transformer --minutes 10`.

A rectified flow (arXiv 2209.03003) of video and audio latents, as the engine samples it: the
velocity at a noise level, with levels shifted as in its schedule. Beside prompts it learns what
guidance compares them with (no prompt, the default negative one, streams that do not attend to each
other, a block without self-attention), and to keep a first frame or a later one that is given. The
trained autoencoders must be in the folder.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from entracte.models.transformer import Transformer, TransformerConfig
from entracte.sampling.schedules import SHIFTS, shifted_sigmas
from entracte.sampling.tokens import VideoGrid
from entracte.versions import AUDIO_GUIDANCE, DEFAULTS_2_3, VIDEO_GUIDANCE

from .flow import RunBlock, Stream, angles, block_states, initialise, velocities
from .latents import KEYFRAMES, Clips, Encoders, Pool, encode
from .loop import Loop, Losses, Run, command, parse, train
from .measures import contact_sheet
from .sampling import Guided, sample
from .sizes import AUDIO_TOKENS, STAGE_1, STAGE_2, TRANSFORMER
from .text import TextSide, new_tokenizer, unconditional

NAME = "transformer"

LOOP = Loop(learning_rate=1.5e-3, betas=(0.9, 0.98), weight_decay=0.01, warmup=200)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is trained on, and what counts.

    pool: clips that are kept as latents; fresh: how many replace others, every `refresh` steps.
    small, large: rows of a batch at stage 1's and at stage 2's size. turns: every so many steps one
        is at stage 2's size.
    no_prompt, apart, skipping: the shares of rows without a prompt, of rows whose streams do not
        attend to each other, and of rows that skip self-attention in guidance's block.
    first_frame: the share of rows that are given their first frame. keyframe: of steps that are
        given a later frame. partly: of these, how many are held with less than full strength.
    audio: the weight of the audio's squared error.
    """

    pool: int = 12288
    at_once: int = 16
    refresh: int = 4
    small: int = 384
    large: int = 96
    turns: int = 5
    no_prompt: float = 0.12
    apart: float = 0.1
    skipping: float = 0.1
    first_frame: float = 0.2
    keyframe: float = 0.08
    partly: float = 0.25
    audio: float = 0.7
    loop: Loop = LOOP


SETTINGS = Settings()
SMOKE = replace(SETTINGS, pool=2, at_once=1, small=2, large=1, turns=2)
HELD_OUT_SEED = 1_000_003


class Model(nn.Module):
    """What this command trains."""

    def __init__(self) -> None:
        super().__init__()
        self.text = TextSide()
        self.transformer = Transformer(TransformerConfig.from_header(TRANSFORMER))
        initialise(self.transformer)


def noise_levels(count: int, device: torch.device) -> Tensor:
    """[count] levels: half spread as the sampler's, half more towards the middle of its steps."""
    even = torch.rand(count, device=device)
    middle = torch.sigmoid(torch.randn(count, device=device))
    u = torch.where(torch.arange(count, device=device) % 2 == 0, even, middle).clamp(1e-3, 1)
    power = math.exp(SHIFTS[1])
    return power / (power + 1 / u - 1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where tokens stand: with angles of both streams, and how many are the grid's own."""

    grid: VideoGrid
    video: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    audio: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def places(transformer: Transformer, device: torch.device) -> dict[tuple[bool, int | None], Place]:
    """By whether they are of stage 2's size, and the number of the keyframe that follows."""
    found = {}
    for large, grid in ((False, STAGE_1), (True, STAGE_2)):
        for key in (None, *range(len(KEYFRAMES))):
            spans = grid.spans()
            if key is not None:
                spans = torch.cat([spans, grid.frame_spans(KEYFRAMES[key])], 1)
            video, audio = angles(transformer, spans, AUDIO_TOKENS, device)
            found[large, key] = Place(grid, video, audio)
    return found


@dataclass(frozen=True, slots=True)
class Batch:
    """A step's inputs, and the velocities that are wanted, [B, tokens, 128] of both streams."""

    video: Stream
    audio: Stream
    wanted: tuple[Tensor, Tensor]


def noisy_batch(
    clips: Clips, contexts: tuple[Tensor, Tensor], place: Place, key: int | None, settings: Settings
) -> Batch:
    """Noise clips, and give some rows a frame. key: the keyframe that all rows are given.

    Where a row is not given its first frame, the tokens there have its noise level.
    """
    large = place.grid is STAGE_2
    clean = (clips.large if large else clips.small).float()
    sound = clips.audio.float()
    count, device = len(clean), clean.device
    sigma = noise_levels(count, device)
    share = (torch.rand(count, device=device) < settings.partly) * torch.rand(count, device=device)
    held = torch.zeros(place.video[0][0].shape[0], device=device)
    own = clean.shape[1]
    if key is not None:
        stills = clips.large_stills if large else clips.small_stills
        clean = torch.cat([clean, stills[:, key].float()], 1)
        held[own:] = 1
        factor = share
    else:
        held[: place.grid.frame_tokens] = 1
        given = torch.rand(count, device=device) < settings.first_frame
        factor = torch.where(given, share, 1.0)
    levels = torch.stack([sigma, sigma * factor], 1)
    noise, sound_noise = torch.randn_like(clean), torch.randn_like(sound)
    per_token = levels[:, :1] * (1 - held) + levels[:, 1:] * held
    latent = torch.lerp(clean, noise, per_token[..., None])
    alike = sigma[:, None].expand(-1, 2)
    return Batch(
        Stream(latent, levels, held, contexts[0], *place.video),
        Stream(
            torch.lerp(sound, sound_noise, sigma[:, None, None]),
            alike,
            torch.zeros(sound.shape[1], device=device),
            contexts[1],
            *place.audio,
        ),
        (noise - clean, sound_noise - sound),
    )


def flow_losses(model: Model, batch: Batch, settings: Settings, run_block: RunBlock) -> Losses:
    """Mean squared errors of the velocities of tokens that are made."""
    count, device = len(batch.video.latent), batch.video.latent.device
    joined = torch.rand(count, device=device) >= settings.apart
    skipped = torch.zeros(len(model.transformer.transformer_blocks), count, dtype=torch.bool)
    skipped = skipped.to(device)
    for block in DEFAULTS_2_3.stg_blocks(len(skipped)):
        skipped[block] = torch.rand(count, device=device) < settings.skipping
    made = velocities(model.transformer, batch.video, batch.audio, joined, skipped, run_block)
    # A held token is not to be made.
    held, levels = batch.video.held, batch.video.levels
    weight = 1 - held * (levels[:, 1:] < levels[:, :1])
    squares = (made[0] - batch.wanted[0]).square().mean(2) * weight
    return {
        "video": squares.sum() / weight.sum(),
        "audio": settings.audio * (made[1] - batch.wanted[1]).square().mean(),
    }


def fit(run: Run, encoders: Encoders | None = None) -> Model:
    """Train for one run, from the checkpoint in its folder if there is one."""
    settings = SMOKE if run.smoke else SETTINGS
    tokenizer = new_tokenizer(2000 if run.smoke else 20_000)
    model = Model().to(run.device)
    encoders = encoders or Encoders(run.folder, run.device)
    fast = run.device.type == "cuda"
    run_block = torch.compile(block_states, dynamic=False) if fast else block_states
    run_text = torch.compile(model.text, dynamic=False) if fast else model.text
    where = places(model.transformer, run.device)
    nothing = unconditional(tokenizer).to(run.device)
    generator = torch.Generator().manual_seed(run.seed)

    def make(count: int, seed: int) -> Clips:
        return encode(encoders, tokenizer, count, seed + 1, run.device)

    pool = Pool(make, settings.pool, settings.at_once, run.seed * 1_000_000)

    def loss(step: int, _done: float) -> Losses:
        if step % settings.refresh == 0:
            pool.refresh()
        large = step % settings.turns == settings.turns - 1
        clips = pool.draw(settings.large if large else settings.small, generator)
        key = None
        if float(torch.rand((), generator=generator)) < settings.keyframe:
            key = int(torch.randint(len(KEYFRAMES), (), generator=generator))
        choice = torch.randint(clips.ids.shape[1], (len(clips),), generator=generator)
        ids = clips.ids[torch.arange(len(clips)), choice]
        ignored = torch.rand(len(clips), generator=generator) < settings.no_prompt
        which = torch.randint(2, (len(clips),), generator=generator)
        ids = torch.where(ignored[:, None].to(run.device), nothing[which.to(run.device)], ids)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=fast):
            contexts = run_text(ids)
            batch = noisy_batch(clips, contexts, where[large, key], key, settings)
            return flow_losses(model, batch, settings, run_block)

    @torch.no_grad()
    def report() -> Mapping[str, float]:
        count = 1 if run.smoke else 8
        held_out = encode(encoders, tokenizer, count, HELD_OUT_SEED, run.device, "heldout")
        with torch.autocast(run.device.type, torch.bfloat16, enabled=fast):
            found = held_out_losses(model, held_out, where[False, None], run.device)
            prompts = torch.cat([held_out.ids[:, 0], nothing[1:].expand(count, -1)])
            contexts = model.text(prompts)
            video, _ = sample(
                model.transformer,
                where[False, None],
                contexts,
                shifted_sigmas(2 if run.smoke else 12),
                Guided(VIDEO_GUIDANCE, AUDIO_GUIDANCE),
                torch.Generator().manual_seed(0),
            )
        grid = (STAGE_1.frames, STAGE_1.height, STAGE_1.width)
        made = encoders.pixels(video, *grid)
        wanted = encoders.pixels(held_out.small, *grid)
        rows = [each for pair in zip(wanted, made, strict=True) for each in pair]
        contact_sheet(rows, run.folder / f"{NAME}.png", frames=7)
        return found

    train(NAME, model, loss, report, settings.loop, run)
    return model


def held_out_losses(
    model: Model, clips: Clips, place: Place, device: torch.device
) -> dict[str, float]:
    """The video's and the audio's error at three noise levels, with the same noise every time."""
    found = {}
    contexts = model.text(clips.ids[:, 0])
    for level in (0.95, 0.75, 0.3):
        generator = torch.Generator().manual_seed(1)
        noises = [
            torch.randn(each.shape, generator=generator).to(device)
            for each in (clips.small, clips.audio)
        ]
        levels = torch.full((len(clips), 2), level, device=device)
        streams = [
            Stream(
                torch.lerp(clean.float(), noise, level),
                levels,
                torch.zeros(clean.shape[1], device=device),
                context,
                *at,
            )
            for clean, noise, context, at in zip(
                (clips.small, clips.audio),
                noises,
                contexts,
                (place.video, place.audio),
                strict=True,
            )
        ]
        made = velocities(model.transformer, streams[0], streams[1])
        for name, out, noise, clean in zip(
            ("video", "audio"), made, noises, (clips.small, clips.audio), strict=True
        ):
            found[f"{name}_{level}"] = float((out - (noise - clean.float())).square().mean())
    return found


def main() -> None:
    fit(parse(command(__doc__ or "").parse_args()))


if __name__ == "__main__":
    main()
