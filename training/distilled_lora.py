"""Train the distilled LoRA: `python -m training.distilled_lora --minutes 5`.

With it the transformer needs a single pass where it was guided, and few steps: those of stage 2,
and the eight of the distilled recipe. Its teacher is the transformer itself with guidance, which
makes videos of prompts in more steps, first at stage 1's size and then, from upsampled latents, at
stage 2's. Of two noise levels that follow each other in a recipe, the student is to get from one to
the other in one step (progressive distillation, arXiv 2202.00512). The trained transformer, video
VAE and upsampler must be in the folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.recipes import DISTILLED, REFINEMENT
from entracte.sampling.tokens import VideoGrid
from entracte.versions import AUDIO_GUIDANCE, VIDEO_GUIDANCE

from .flow import Stream, velocities
from .latents import CAPTIONS, Pool
from .loop import Loop, Losses, Run, command, load_weights, parse, train
from .measures import contact_sheet
from .media_sizes import UPSAMPLER, VIDEO_VAE
from .sampling import Guided, States, steps
from .sizes import LORA_RANK, STAGE_1, STAGE_2
from .text import new_tokenizer, token_ids, unconditional
from .transformer import HELD_OUT_SEED, Model, Place, places
from .world import captions, sample_scenes
from .world.scenes import Split

NAME = "distilled_lora"
GUIDED = Guided(VIDEO_GUIDANCE, AUDIO_GUIDANCE)

# The published LoRA's keys begin with this.
PREFIX = "diffusion_model."


@dataclass(frozen=True, slots=True)
class Settings:
    """What is trained on.

    videos: that the teacher has made and that are kept, and `at_once` made at the beginning and
        every `refresh` steps. small, large: videos of a batch at stage 1's and at stage 2's size.
    longest: the teacher's steps are at most so far apart.
    """

    videos: int = 512
    at_once: int = 32
    refresh: int = 40
    small: int = 96
    large: int = 32
    longest: float = 0.08
    loop: Loop = Loop(learning_rate=1.5e-3, warmup=50, decay=0.6, reports=100.0)  # noqa: RUF009


SETTINGS = Settings()
SMOKE = replace(SETTINGS, videos=1, at_once=1, small=1, large=1, longest=1.0)


class Factors(nn.Module):
    """What is added to a linear: up(down(x))."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rank = min(LORA_RANK, linear.in_features, linear.out_features)
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up)


class WithFactors(nn.Module):
    """A linear and its factors."""

    def __init__(self, linear: nn.Linear, factors: Factors) -> None:
        super().__init__()
        self.linear, self.factors = linear, factors

    @property
    def weight(self) -> Tensor:
        """The linear's own, of whose dtype inputs are."""
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.linear(x) + self.factors(x)
        return made


class Lora(nn.Module):
    """Factors for all linears of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        linears = {
            name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)
        }
        self.names = list(linears)
        self.factors = nn.ModuleList(Factors(each) for each in linears.values())

    def add_to(self, module: nn.Module) -> None:
        """Put the factors beside a module's linears, once."""
        for name, factors in zip(self.names, self.factors, strict=True):
            parent, _, leaf = name.rpartition(".")
            linear = module.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            assert isinstance(factors, Factors)
            module.get_submodule(parent).add_module(leaf, WithFactors(linear, factors))

    def published(self) -> dict[str, Tensor]:
        """The factors by the keys of the published LoRA, in bfloat16."""
        found = {}
        for name, factors in zip(self.names, self.factors, strict=True):
            assert isinstance(factors, Factors)
            found[f"{PREFIX}{name}.lora_A.weight"] = factors.down.detach().bfloat16().contiguous()
            found[f"{PREFIX}{name}.lora_B.weight"] = factors.up.detach().bfloat16().contiguous()
        return found


@dataclass(frozen=True, slots=True)
class Videos:
    """What the teacher makes of prompts: the states at a recipe's noise levels, [n, levels, tokens,
    128] in bfloat16 of each stream, and the prompts' token ids, [n, TOKENS] int16.
    """

    small_video: Tensor
    small_audio: Tensor
    large_video: Tensor
    large_audio: Tensor
    ids: Tensor

    def states(self, large: bool) -> States:
        if large:
            return States(self.large_video, self.large_audio)
        return States(self.small_video, self.small_audio)


class Teacher:
    """The guided transformer, the upsampler, and what lies between them."""

    def __init__(self, run: Run, settings: Settings) -> None:
        self.model = Model()
        load_weights(run.folder / "transformer.safetensors", self.model)
        self.upsampler, self.vae = Upsampler(UPSAMPLER), VideoVae(VIDEO_VAE)
        load_weights(run.folder / "upsampler.safetensors", self.upsampler)
        load_weights(run.folder / "video_vae.safetensors", self.vae)
        for each in (self.model, self.upsampler, self.vae):
            each.to(run.device).requires_grad_(False)
        self.tokenizer = new_tokenizer(2000 if run.smoke else 20_000)
        self.nothing = unconditional(self.tokenizer)[1:].to(run.device)
        self.places = places(self.model.transformer, run.device)
        self._longest, self._device = settings.longest, run.device

    def prompts(self, count: int, seed: int, split: Split) -> Tensor:
        """Token ids of captions, [count, TOKENS]."""
        texts = captions(sample_scenes(count, seed, split), CAPTIONS * seed)
        return token_ids(self.tokenizer, texts).to(self._device)

    def make(self, ids: Tensor, generator: torch.Generator) -> Videos:
        """Videos of prompts, in both stages."""
        contexts = self.model.text(torch.cat([ids, self.nothing.expand(len(ids), -1)]))
        first, second = self.places[False, None], self.places[True, None]
        small = self._states(DISTILLED, first, contexts, self._noise(ids, first, generator))
        end = States(small.video[:, -1].float(), small.audio[:, -1].float())
        enlarged = States(self.enlarged(end.video), end.audio)
        noise = self._noise(ids, second, generator)
        start = States(
            *(torch.lerp(x, n, REFINEMENT[0]) for x, n in zip(enlarged, noise, strict=True))
        )
        large = self._states(REFINEMENT, second, contexts, start)
        return Videos(*small, *large, ids)

    def enlarged(self, tokens: Tensor) -> Tensor:
        """Normalised tokens of stage 1's size to those of stage 2's."""
        grid = (STAGE_1.frames, STAGE_1.height, STAGE_1.width)
        latents = self.vae.denormalise(tokens.transpose(1, 2).unflatten(2, grid))
        large: Tensor = self.vae.normalise(self.upsampler(latents).float())
        return large.flatten(2).transpose(1, 2)

    def _states(
        self,
        levels: tuple[float, ...],
        place: Place,
        contexts: tuple[Tensor, Tensor],
        start: States,
    ) -> States:
        sigmas, kept = between(levels, self._longest)
        found = steps(self.model.transformer, place, contexts, sigmas, GUIDED, start)
        video, audio = zip(*(found[index] for index in kept), strict=True)
        return States(torch.stack(video, 1).bfloat16(), torch.stack(audio, 1).bfloat16())

    def _noise(self, ids: Tensor, place: Place, generator: torch.Generator) -> States:
        return States(
            *(
                torch.randn(len(ids), each[0][0].shape[0], 128, generator=generator).to(ids.device)
                for each in (place.video, place.audio)
            )
        )


def between(levels: tuple[float, ...], longest: float) -> tuple[Tensor, list[int]]:
    """Noise levels at most so far apart, and which of them are the given ones."""
    found, kept = [levels[0]], [0]
    for level, following in pairwise(levels):
        parts = max(1, round((level - following) / longest))
        found += [level + (following - level) * part / parts for part in range(1, parts + 1)]
        kept.append(len(found) - 1)
    return torch.tensor(found), kept


def fit(run: Run, settings: Settings = SETTINGS) -> Lora:
    """Train for one run, from the checkpoint in its folder if there is one."""
    fast = run.device.type == "cuda"
    teacher = Teacher(run, settings)
    student = Model()
    student.load_state_dict(teacher.model.state_dict())
    student.to(run.device).requires_grad_(False)
    lora = Lora(student.transformer).to(run.device)
    lora.add_to(student.transformer)
    generator = torch.Generator().manual_seed(run.seed)

    def autocast() -> torch.autocast:
        return torch.autocast(run.device.type, torch.bfloat16, enabled=fast)

    def make(count: int, seed: int) -> Videos:
        with torch.no_grad(), autocast():
            return teacher.make(teacher.prompts(count, seed + 1, "train"), generator)

    pool = Pool(make, settings.videos, settings.at_once, run.seed)

    def loss(step: int, _done: float) -> Losses:
        if step % settings.refresh == 0:
            pool.refresh()
        large = step % 2 == 1
        videos = pool.draw(settings.large if large else settings.small, generator)
        levels = REFINEMENT if large else DISTILLED
        at = torch.randint(len(levels) - 1, (len(videos.ids),), generator=generator)
        with autocast():
            with torch.no_grad():
                contexts = student.text(videos.ids)
            place, states = teacher.places[large, None], videos.states(large)
            return step_losses(student, place, contexts, states, levels, at.to(run.device))

    @torch.no_grad()
    def report() -> Mapping[str, float]:
        ids = teacher.prompts(1 if run.smoke else 6, HELD_OUT_SEED, "heldout")
        seeded = torch.Generator().manual_seed(0)
        with autocast():
            wanted = teacher.make(ids, seeded)
            contexts = student.text(ids)
            small, large = (
                steps(
                    student.transformer,
                    teacher.places[is_large, None],
                    contexts,
                    torch.tensor(levels),
                    None,
                    States(*(x[:, 0].float() for x in states)),
                )[-1]
                for is_large, levels, states in (
                    (False, DISTILLED, wanted.states(large=False)),
                    (True, REFINEMENT, wanted.states(large=True)),
                )
            )
            plain = steps(
                teacher.model.transformer,
                teacher.places[True, None],
                contexts,
                torch.tensor(REFINEMENT),
                None,
                States(*(x[:, 0].float() for x in wanted.states(large=True))),
            )[-1]
            rows = [
                pixels(teacher.vae, each, STAGE_2)
                for each in (wanted.large_video[:, -1].float(), large.video, plain.video)
            ]
        sheet = [each for row in zip(*rows, strict=True) for each in row]
        contact_sheet(sheet, run.folder / f"{NAME}.png", frames=5)
        ends = {
            "small": (small, wanted.states(large=False)),
            "large": (large, wanted.states(large=True)),
        }
        found = {
            f"{name}_{stream}": float((made - aim[:, -1]).square().mean())
            for name, (all_made, all_aims) in ends.items()
            for stream, made, aim in zip(("video", "audio"), all_made, all_aims, strict=True)
        }
        without = (plain.video - wanted.large_video[:, -1]).square().mean()
        return found | {"large_without": float(without)}

    train(NAME, lora, loss, report, settings.loop, run)
    return lora


def step_losses(
    student: Model,
    place: Place,
    contexts: tuple[Tensor, Tensor],
    states: States,
    levels: tuple[float, ...],
    at: Tensor,
) -> Losses:
    """The squared errors of velocities that lead from level `at` [B] to the next."""
    rows = torch.arange(len(at), device=at.device)
    sigmas = torch.tensor(levels, device=at.device)
    length = (sigmas[at] - sigmas[at + 1])[:, None, None]
    streams, wanted = [], []
    for x, text, where in zip(states, contexts, (place.video, place.audio), strict=True):
        begin, end = x[rows, at].float(), x[rows, at + 1].float()
        wanted.append((begin - end) / length)
        level = sigmas[at][:, None].expand(-1, 2)
        nowhere = torch.zeros(begin.shape[1], device=at.device)
        streams.append(Stream(begin, level, nowhere, text, *where))
    made = velocities(student.transformer, streams[0], streams[1])
    return {
        name: (one - aim).square().mean()
        for name, one, aim in zip(("video", "audio"), made, wanted, strict=True)
    }


def pixels(vae: VideoVae, tokens: Tensor, grid: VideoGrid) -> Tensor:
    """Normalised tokens [n, tokens, 128] to pictures."""
    latents = tokens.transpose(1, 2).unflatten(2, (grid.frames, grid.height, grid.width))
    return torch.cat([vae.decode(each[None]).float() for each in latents])


def main() -> None:
    options = command(__doc__ or "").parse_args()
    fit(parse(options), SMOKE if options.smoke else SETTINGS)


if __name__ == "__main__":
    main()
