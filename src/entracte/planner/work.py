"""How much arithmetic, and how much memory beside weights, every stage of a request takes."""

from dataclasses import dataclass

from entracte.models.tiling import Tiling
from entracte.models.video_vae import SPATIAL_SCALE
from entracte.recipes import LOOP_NAMES

from .model_profile import ModelFigures
from .stage_costs import mel_frames
from .tile_work import Tiles, decode_bytes, decode_flops
from .transformer_flops import groups, loop_flops
from .transformer_memory import context_bytes, loop_bytes, rotary_bytes
from .workload import PhaseLoad, Workload

NOISE_BYTES = 2


@dataclass(frozen=True, slots=True)
class StageWork:
    """One stage, by the name that a run traces it under.

    loans: components that are borrowed at once for it, beside the transformer.
    flops: of the whole stage; of a loop: of all steps.
    activations: the most bytes of device memory in use at once beside weights, what earlier stages
        left (contexts, rotary tables, latents) included.
    phase: the number of the transformer's phase, for its loop.
    calls: for a loop, how often a block is called, once for every batch of passes.
    """

    name: str
    loans: tuple[str, ...]
    flops: float
    activations: int
    phase: int | None = None
    calls: int = 0


def stage_work(model: ModelFigures, load: Workload) -> tuple[StageWork, ...]:
    """All stages that take work on the device, in the order of the run."""
    stages = _Stages(model, load)
    for number in range(load.new_prompts):
        stages.encode_text(number)
    stages.contexts_are_there()
    for number, phase in enumerate(load.phases):
        if number > 0:
            stages.upsample(load.phases[number - 1])
        stages.start(phase)
        if phase.images:
            stages.encode_images(phase)
        stages.loop(number, phase)
    stages.decode_audio()
    stages.decode_video()
    return tuple(stages.found)


class _Stages:
    """The stages so far, and what they have left in the device's memory."""

    def __init__(self, model: ModelFigures, load: Workload) -> None:
        self.found: list[StageWork] = []
        self._model, self._load, self._costs = model, load, model.costs
        self._context = context_bytes(model.transformer, model.itemsize)
        self._contexts = max(phase.contexts for phase in load.phases)
        # The engine keeps the tables of its last shapes, so a second request finds all of them.
        self._left = sum(rotary_bytes(model.transformer, p, model.itemsize) for p in load.phases)
        self._left += max(0, self._contexts - load.new_prompts) * self._context
        # Inputs are there from the beginning, until they are used.
        self._left += sum(
            self._noise(phase) + phase.images * self._pixels(phase) for phase in load.phases
        )
        self._started_from = 0  # the latents that the last phase started from

    def encode_text(self, number: int) -> None:
        """One prompt, from tokens to its context."""
        encode, connect = self._costs.encode_text, self._costs.connect_text
        left = number * self._context
        self._add("encode text", ("text_encoder",), encode.flops_of(1), left + encode.nbytes_of(1))
        self._add("connect text", ("connectors",), connect.flops_of(1), left + connect.nbytes_of(1))

    def contexts_are_there(self) -> None:
        self._left += min(self._contexts, self._load.new_prompts) * self._context

    def upsample(self, previous: PhaseLoad) -> None:
        """The phase before, to twice its sides."""
        cost, places = self._costs.upsample, previous.frames * previous.height * previous.width
        self._add(
            "upsample", ("upsampler", "video_vae"), cost.flops_of(places), cost.nbytes_of(places)
        )

    def start(self, phase: PhaseLoad) -> None:
        """The latents that a phase starts from take the place of those of the phase before."""
        self._left += self._latents(phase) - self._started_from
        self._started_from = self._latents(phase)

    def encode_images(self, phase: PhaseLoad) -> None:
        """One after another; those that are encoded stay until the loop has ended."""
        cost, places = self._costs.encode_image, phase.height * phase.width
        self._add(
            f"encode images ({phase.name})",
            ("video_vae",),
            phase.images * cost.flops_of(places),
            # One image's pixels are in its cost too.
            (phase.images - 1) * self._video(1, phase)
            + cost.nbytes_of(places)
            - self._pixels(phase),
        )
        self._left -= phase.images * self._pixels(phase)

    def loop(self, number: int, phase: PhaseLoad) -> None:
        """All steps of a phase."""
        config = self._model.transformer
        self._left -= self._noise(phase)
        images = phase.images * self._video(1, phase)
        self._add(
            LOOP_NAMES[phase.name],
            (),
            loop_flops(config, phase),
            images + loop_bytes(config, phase, self._model.itemsize),
            number,
            round(phase.steps * config.layers * groups(phase)),
        )
        self._left += self._latents(phase)

    def decode_audio(self) -> None:
        self._left -= self._started_from
        cost, frames = self._costs.decode_audio, mel_frames(self._load.audio_tokens)
        self._add(
            "decode audio", ("audio_vae", "vocoder"), cost.flops_of(frames), cost.nbytes_of(frames)
        )

    def decode_video(self) -> None:
        last, cost = self._load.phases[-1], self._costs.decode_frames
        tiles = Tiles.of(last.frames, last.height, last.width, Tiling())
        self._add(
            "decode video",
            ("video_vae",),
            decode_flops(cost, tiles),
            decode_bytes(cost, tiles, self._model.itemsize),
        )

    def _latents(self, phase: PhaseLoad) -> int:
        """Of a phase: what it starts from, and as much again that it leaves."""
        audio = phase.audio_tokens * self._model.transformer.audio.in_channels
        return self._video(phase.frames, phase) + audio * self._model.itemsize

    def _noise(self, phase: PhaseLoad) -> int:
        """Of a phase, in bfloat16 whatever the model is in."""
        return self._latents(phase) * NOISE_BYTES // self._model.itemsize

    def _pixels(self, phase: PhaseLoad) -> int:
        """Of an image, fitted to a phase's size."""
        sides = phase.height * phase.width * SPATIAL_SCALE**2
        return 3 * sides * self._model.itemsize

    def _video(self, frames: int, phase: PhaseLoad) -> int:
        channels = self._model.transformer.video.in_channels
        return frames * phase.height * phase.width * channels * self._model.itemsize

    def _add(
        self,
        name: str,
        loans: tuple[str, ...],
        flops: float,
        nbytes: float,
        phase: int | None = None,
        calls: int = 0,
    ) -> None:
        activations = round(self._left + nbytes)
        self.found.append(StageWork(name, loans, flops, activations, phase, calls))
