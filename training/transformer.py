"""Train text side and transformer together: `python -m training.transformer --minutes 10`.

A rectified flow (arXiv 2209.03003) of video and audio latents, as the engine samples it: the
velocity at a noise level, with levels shifted as in its schedule. Beside prompts it learns what
guidance compares them with (no prompt, the default negative one, streams that do not attend to each
other, a block without self-attention), and to keep a first frame, a later one or a sound that is
given. The trained autoencoders must be in the folder.

On four GPUs: `torchrun --standalone --nproc-per-node 4 -m training.transformer --minutes 10`.
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
from .loop import Loop, Losses, Run, command, parse, step_of, train
from .measures import contact_sheet
from .sampling import Guided, sample
from .sizes import AUDIO_TOKENS, STAGE_1, STAGE_2, TRANSFORMER
from .text import TextSide, new_tokenizer, unconditional

NAME = "transformer"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is trained on, and what counts; of every rank.

    pool, large_pool: clips that are kept as latents of stage 1's and of stage 2's size; every
        `refresh` steps `at_once` of the former are replaced, or a quarter as many of the latter.
    small, large: clips of a batch at stage 1's and at stage 2's size; noised: how often each of
        them is in it, at as many noise levels. turns: every so many steps one is at stage 2's size.
    no_prompt, apart, skipping: the shares of rows without a prompt, of rows whose streams do not
        attend to each other, and of rows that skip self-attention in guidance's block.
    first_frame, sound: the shares of rows that are given their first frame, or their sound.
    keyframe: of steps that are given a later frame. partly: of given frames, how many are held
        with less than full strength.
    objects: how much more tokens count in which objects are. audio: the weight of its error.
    """

    pool: int = 2048
    large_pool: int = 512
    at_once: int = 32
    refresh: int = 16
    small: int = 48
    large: int = 12
    noised: int = 4
    turns: int = 4
    no_prompt: float = 0.12
    apart: float = 0.1
    skipping: float = 0.1
    first_frame: float = 0.15
    sound: float = 0.05
    keyframe: float = 0.08
    partly: float = 0.25
    objects: float = 3.0
    audio: float = 0.7
    loop: Loop = Loop(  # noqa: RUF009
        learning_rate=2e-3, muon=True, weight_decay=0.02, warmup=150, decay=0.5, reports=150.0
    )


SETTINGS = Settings()
SMOKE = replace(SETTINGS, pool=2, large_pool=1, at_once=1, small=1, large=1, noised=2, turns=2)
HELD_OUT_SEED = 1_000_003

# From here on are the seeds of clips of stage 2's size.
LARGE_SEEDS = 50_000_000


class Model(nn.Module):
    """What this command trains."""

    def __init__(self) -> None:
        super().__init__()
        self.text = TextSide()
        self.transformer = Transformer(TransformerConfig.from_header(TRANSFORMER))
        initialise(self.transformer)

    def hidden(self) -> list[nn.Parameter]:
        """The weights between hidden states."""
        return [
            weight
            for name, weight in self.named_parameters()
            if weight.dim() == 2
            and name.endswith(".weight")
            and ("_blocks." in name or ".layers." in name)
            and "gate_logits" not in name
        ]


def noise_levels(count: int, large: bool, device: torch.device) -> Tensor:
    """[count] levels, spread evenly over rows that follow each other.

    Every other row's are spread as the sampler's; the rest's more towards the middle of its steps,
    or, at stage 2's size, over the levels that stage 2 begins at.
    """
    rows = torch.arange(count, device=device)
    u = (rows * ((5**0.5 - 1) / 2) + torch.rand((), device=device)) % 1
    u = u.clamp(1e-3, 1 - 1e-3)
    other = u if large else torch.sigmoid(torch.special.ndtri(u))
    power = math.exp(SHIFTS[1])

    def shifted(levels: Tensor) -> Tensor:
        return power / (power + 1 / levels - 1)

    return torch.where(rows % 2 == 0, shifted(u), 0.93 * other if large else shifted(other))


@dataclass(frozen=True, slots=True)
class Place:
    """Where tokens stand: the angles of both streams' tokens, in own and in cross attention."""

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
    """A step's inputs; the velocities that are wanted, [B, tokens, 128] of both streams; and what a
    token's error counts, [B, tokens].
    """

    video: Stream
    audio: Stream
    wanted: tuple[Tensor, Tensor]
    weights: tuple[Tensor, Tensor]


def noisy_batch(
    clips: Clips, contexts: tuple[Tensor, Tensor], place: Place, key: int | None, settings: Settings
) -> Batch:
    """Noise clips, and give some rows a frame or their sound. key: the keyframe that all are given.

    Where a row is not given its first frame, the tokens there have its noise level.
    """
    clean, sound = clips.video.float(), clips.audio.float()
    count, device = len(clean), clean.device
    sigma = noise_levels(count, place.grid is STAGE_2, device)
    share = (torch.rand(count, device=device) < settings.partly) * torch.rand(count, device=device)
    held = torch.zeros(place.video[0][0].shape[0], device=device)
    weights = 1 + settings.objects * clips.objects.float()
    own = clean.shape[1]
    if key is not None:
        stills = clips.stills[:, key].float()
        clean = torch.cat([clean, stills], 1)
        weights = torch.cat([weights, torch.zeros_like(stills[:, :, 0])], 1)
        held[own:] = 1
        factor = share
    else:
        held[: place.grid.frame_tokens] = 1
        given = torch.rand(count, device=device) < settings.first_frame
        factor = torch.where(given, share, 1.0)
        # A held token is not to be made.
        weights = weights * (1 - held * given[:, None])
    heard = torch.rand(count, device=device) < settings.sound
    sound_sigma = torch.where(heard, 0.0, sigma)
    levels = torch.stack([sigma, sigma * factor], 1)
    noise, sound_noise = torch.randn_like(clean), torch.randn_like(sound)
    per_token = levels[:, :1] * (1 - held) + levels[:, 1:] * held
    return Batch(
        Stream(
            torch.lerp(clean, noise, per_token[..., None]), levels, held, contexts[0], *place.video
        ),
        Stream(
            torch.lerp(sound, sound_noise, sound_sigma[:, None, None]),
            sound_sigma[:, None].expand(-1, 2),
            torch.zeros(sound.shape[1], device=device),
            contexts[1],
            *place.audio,
        ),
        (noise - clean, sound_noise - sound),
        (weights, (~heard).float()[:, None].expand(-1, sound.shape[1])),
    )


def flow_losses(model: Model, batch: Batch, settings: Settings, run_block: RunBlock) -> Losses:
    """Weighted mean squared errors of the velocities."""
    count, device = len(batch.video.latent), batch.video.latent.device
    joined = torch.rand(count, device=device) >= settings.apart
    blocks = len(model.transformer.transformer_blocks)
    skipped = torch.zeros(blocks, count, dtype=torch.bool, device=device)
    for block in DEFAULTS_2_3.stg_blocks(blocks):
        skipped[block] = torch.rand(count, device=device) < settings.skipping
    made = velocities(model.transformer, batch.video, batch.audio, joined, skipped, run_block)
    video, audio = (
        ((one - wanted).square().mean(2) * weight).sum() / weight.sum()
        for one, wanted, weight in zip(made, batch.wanted, batch.weights, strict=True)
    )
    return {"video": video, "audio": settings.audio * audio}


def fit(run: Run, settings: Settings = SETTINGS, fast: bool | None = None) -> Model:
    """Train for one run, from the checkpoint in its folder if there is one.

    fast: compiled and in bfloat16, which on a GPU it is.
    """
    tokenizer = new_tokenizer(2000 if run.smoke else 20_000)
    model = Model().to(run.device)
    encoders = Encoders(run.folder, run.device)
    fast = run.device.type == "cuda" if fast is None else fast
    # One shape is compiled, that of most steps: each takes a minute of a run.
    compiled = torch.compile(block_states, dynamic=False) if fast else block_states
    where = places(model.transformer, run.device)
    nothing = unconditional(tokenizer).to(run.device)
    generator = torch.Generator().manual_seed(run.seed)

    # A run that goes on sees other scenes.
    seed = run.seed + step_of(run.folder / f"{NAME}.safetensors")

    def pool(grid: VideoGrid, size: int, at_once: int) -> Pool[Clips]:
        def make(count: int, seed: int) -> Clips:
            return encode(encoders, tokenizer, grid, count, seed + 1, run.device)

        return Pool(make, size, at_once, seed + (LARGE_SEEDS if grid is STAGE_2 else 0))

    pools = {
        False: pool(STAGE_1, settings.pool, settings.at_once),
        True: pool(STAGE_2, settings.large_pool, max(1, settings.at_once // 4)),
    }

    def loss(step: int, _done: float) -> Losses:
        # What kind of step it is, all ranks agree on.
        kind = torch.Generator().manual_seed(step)
        large = step % settings.turns == settings.turns - 1
        key = None
        if float(torch.rand((), generator=kind)) < settings.keyframe:
            key = int(torch.randint(len(KEYFRAMES), (), generator=kind))
        if step % settings.refresh == 0:
            pools[step // settings.refresh % 2 == 1].refresh()
        clips = pools[large].draw(settings.large if large else settings.small, generator)
        count = len(clips)
        choice = torch.randint(clips.ids.shape[1], (count,), generator=generator)
        ids = clips.ids[torch.arange(count), choice]
        # Each row's own prompt, or one of those that stand for none.
        rows = torch.arange(count).repeat_interleave(settings.noised)
        ignored = torch.rand(len(rows), generator=generator) < settings.no_prompt
        which = count + torch.randint(len(nothing), (len(rows),), generator=generator)
        rows = torch.where(ignored, which, rows).to(run.device, non_blocking=True)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=fast):
            told = model.text(torch.cat([ids, nothing]))
            contexts = told[0][rows], told[1][rows]
            batch = noisy_batch(
                clips.repeated(settings.noised), contexts, where[large, key], key, settings
            )
            usual = key is None and not large
            return flow_losses(model, batch, settings, compiled if usual else block_states)

    held_out = encode(
        encoders, tokenizer, STAGE_1, 1 if run.smoke else 8, HELD_OUT_SEED, run.device, "heldout"
    )

    @torch.no_grad()
    def report() -> Mapping[str, float]:
        count = len(held_out)
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
        made, wanted = (encoders.pixels(each, STAGE_1) for each in (video, held_out.video))
        rows = [each for pair in zip(wanted, made, strict=True) for each in pair]
        contact_sheet(rows, run.folder / f"{NAME}.png", frames=7)
        return found

    train(NAME, model, loss, report, settings.loop, run, model.hidden())
    return model


def held_out_losses(
    model: Model, clips: Clips, place: Place, device: torch.device
) -> dict[str, float]:
    """The video's and the audio's error at three noise levels, with the same noise every time; and
    that of video tokens in which objects are.
    """
    found = {}
    contexts = model.text(clips.ids[:, 0])
    objects = clips.objects.float()
    for level in (0.95, 0.75, 0.3):
        generator = torch.Generator().manual_seed(1)
        noises = [
            torch.randn(each.shape, generator=generator).to(device)
            for each in (clips.video, clips.audio)
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
                (clips.video, clips.audio),
                noises,
                contexts,
                (place.video, place.audio),
                strict=True,
            )
        ]
        made = velocities(model.transformer, streams[0], streams[1])
        for name, out, noise, clean in zip(
            ("video", "audio"), made, noises, (clips.video, clips.audio), strict=True
        ):
            squares = (out - (noise - clean.float())).square().mean(2)
            found[f"{name}_{level}"] = float(squares.mean())
            if name == "video":
                found[f"objects_{level}"] = float((squares * objects).sum() / objects.sum())
    return found


def main() -> None:
    parser = command(__doc__ or "")
    parser.add_argument("--learning-rate", type=float, default=SETTINGS.loop.learning_rate)
    options = parser.parse_args()
    settings = SMOKE if options.smoke else SETTINGS
    loop = replace(settings.loop, learning_rate=options.learning_rate)
    fit(parse(options), replace(settings, loop=loop))


if __name__ == "__main__":
    main()
