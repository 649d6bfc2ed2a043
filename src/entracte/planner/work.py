"""How much arithmetic, and how much memory beside weights, every stage of a request takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from entracte import stages
from entracte.media.read_sound import CHANNELS as SOUND_CHANNELS
from entracte.models import mel
from entracte.models.kernels.calls import TEXT_BYTES
from entracte.models.kernels.graphs import pool_bytes
from entracte.models.tiling import Tiling, encoded_tiles
from entracte.models.video_vae import SPATIAL_SCALE, TEMPORAL_SCALE
from entracte.parallel import ONE_RANK, Layout
from entracte.stages import Stage

from .model_profile import ModelFigures
from .stage_laws import NOTHING, mel_frames
from .tile_work import Tiles, decode_work
from .transformer_work import TransformerMeter
from .workload import PhaseLoad, SeenVideo, Workload

NOISE_BYTES = 2  # an element of noise


@dataclass(frozen=True, slots=True)
class StageWork:
    """What one stage of a run takes.

    flops: of the whole stage; of a loop: of all steps.
    activations: the most bytes of device memory in use at once beside weights, what earlier stages
        left (contexts, rotary tables, latents) included.
    phase: the number of the transformer's phase, for its loop.
    block_calls: for a loop, how often a block is called, once for every batch of passes.
    held, pooled: for a loop; see `LoopWork`.
    from_graphs: its blocks, or the text encoder's layers, are run from captured graphs.
    exchanges, exchanged, share: for a loop on several devices; in_float8: for a loop; see
        `LoopWork`.
    """

    stage: Stage
    flops: float
    activations: int
    phase: int | None = None
    block_calls: int = 0
    held: int = 0
    pooled: int = 0
    from_graphs: bool = False
    exchanges: int = 0
    exchanged: int = 0
    share: float = 1.0
    in_float8: float = 0.0

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def loans(self) -> tuple[str, ...]:
        """The components that are on loan for it at once."""
        return self.stage.uses


def stage_work(
    model: ModelFigures,
    load: Workload,
    transformer: TransformerMeter,
    layouts: Sequence[Layout] = (),
    exchanges_captured: bool = False,
) -> tuple[StageWork, ...]:
    """All stages that compute enough to be planned, in the order of the run.

    layouts: of every phase, on several devices; the work is that of the one with most to do.
    exchanges_captured: see `loop_work`.
    """
    layouts = layouts or (ONE_RANK,) * len(load.phases)
    work = _Work(model, load, transformer, layouts, exchanges_captured)
    work.opening()
    for number in range(-(-load.new_prompts // layouts[0].ranks)):  # each by one device
        work.for_a_prompt(number)
    work.contexts_are_there()
    work.given()
    for number in range(len(load.phases)):
        work.phase(number)
    work.closing()
    return tuple(work.found)


def loop_work(
    phase: PhaseLoad, transformer: TransformerMeter, layout: Layout, exchanges_captured: bool
) -> StageWork:
    """The loop of a phase by itself.

    exchanges_captured: whether blocks that exchange tensors can be run from graphs, too.
    """
    loop = transformer.loop(phase, layout)
    captured = layout.row == 1 or exchanges_captured
    return StageWork(
        stages.PHASES[phase.name].loop,
        loop.flops,
        loop.nbytes,
        block_calls=loop.block_calls,
        held=loop.held if captured else 0,
        pooled=loop.pooled if captured else 0,
        exchanges=loop.exchanges,
        exchanged=loop.exchanged,
        share=loop.share,
        in_float8=loop.in_float8,
    )


def with_graphs(work: Sequence[StageWork]) -> tuple[StageWork, ...]:
    """The same stages, with text, and loops where they are captured, run from graphs.

    Graphs stay for the next request, so their memory counts in every stage.
    """
    held, pooled = sum(each.held for each in work), max(each.pooled for each in work)
    kept = TEXT_BYTES + (held + pool_bytes(pooled) if held else 0)
    return tuple(
        replace(
            each,
            activations=each.activations + kept,
            from_graphs=each.held > 0 or each.stage is stages.ENCODE_TEXT,
        )
        for each in work
    )


class _Work:
    """Builds the list of stages, tracking the memory that each leaves allocated.

    A stage without a cost here is planned with what its components take alone.
    """

    def __init__(
        self,
        model: ModelFigures,
        load: Workload,
        transformer: TransformerMeter,
        layouts: Sequence[Layout],
        exchanges_captured: bool,
    ) -> None:
        self.found: list[StageWork] = []
        self._layouts = layouts
        self._exchanges_captured = exchanges_captured
        self._model, self._load, self._costs = model, load, model.costs
        self._transformer = transformer
        self._context = transformer.context_bytes
        self._contexts = max(phase.contexts for phase in load.phases)
        # The engine keeps the tables of its last shapes, so a second request finds all of them.
        self._left = sum(map(transformer.rotary_bytes, load.phases))
        self._left += max(0, self._contexts - load.new_prompts) * self._context
        if exchanges_captured:  # through memory that is kept, as the tables are
            self._left += sum(map(transformer.row_bytes, load.phases, layouts))
        # Inputs are there from the beginning, until they are used.
        self._left += sum(
            self._noise(phase) + phase.images * self._pixels(phase) for phase in load.phases
        )
        self._left += self._mel() + sum(self._seen(v.frames, v.height * v.width) for v in load.seen)
        self._given = 0  # latents of a source, from which the first phase starts
        self._looked_at = 0  # latents of control videos
        self._started_from = 0  # the latents that the last phase started from

    def opening(self) -> None:
        for stage in stages.OPENING:
            self._add(stage)

    def for_a_prompt(self, number: int) -> None:
        """One prompt, from tokens to its context."""
        costs = {
            stages.ENCODE_TEXT: self._costs.encode_text,
            stages.CONNECT_TEXT: self._costs.connect_text,
        }
        left = number * self._context
        for stage in stages.FOR_A_PROMPT:
            cost = costs.get(stage, NOTHING)
            self._add(stage, cost.flops_of(1), left + cost.nbytes_of(1))

    def contexts_are_there(self) -> None:
        self._left += min(self._contexts, self._load.new_prompts) * self._context

    def given(self) -> None:
        """What is given, from pixels and a spectrogram to latents, which stay."""
        for seen in self._load.seen:
            self._encode_video(seen)
        heard, frames = self._costs.encode_sound, self._load.heard
        if frames:
            read = self._mel()  # which is in the cost, too
            self._add(stages.ENCODE_SOUND, heard.flops_of(frames), heard.nbytes_of(frames) - read)
            self._left -= read

    def _encode_video(self, seen: SeenVideo) -> None:
        """In tiles, or at once."""
        cost, whole = self._costs.encode_frames, (seen.frames, seen.height * seen.width)
        tiles = [whole]
        if seen.tiled:
            tiles = encoded_tiles(seen.frames, seen.height, seen.width, Tiling())
        flops = sum(places * cost.flops_of(frames) for frames, places in tiles)
        # A tile's pixels, which are in the cost, are a part of what is there already.
        largest = max(n * cost.nbytes_of(frames) - self._seen(frames, n) for frames, n in tiles)
        self._add(stages.ENCODE_VIDEO, flops, largest)
        self._left -= self._seen(*whole)
        channels = self._model.transformer.video.in_channels
        nbytes = seen.frames * seen.height * seen.width * channels * self._model.itemsize
        self._left += nbytes
        if seen.tiled:
            self._given += nbytes
        else:
            self._looked_at += nbytes

    def _seen(self, frames: int, places: int) -> int:
        """The pixels of so many latent frames of a given video, and places of a frame."""
        pixels = ((frames - 1) * TEMPORAL_SCALE + 1) * places * SPATIAL_SCALE**2
        return 3 * pixels * self._model.itemsize

    def _mel(self) -> int:
        return self._load.heard * SOUND_CHANNELS * mel.BINS * self._model.itemsize

    def phase(self, number: int) -> None:
        """A phase, and what stands between it and the one before."""
        phase = self._load.phases[number]
        own = stages.PHASES[phase.name]
        if number > 0:
            for stage in stages.BETWEEN_PHASES:
                self._between(stage, self._load.phases[number - 1])
        # The latents that it starts from take the place of those of the phase before.
        self._left += self._latents(phase) - self._started_from
        self._started_from = self._latents(phase)
        for stage in own.in_order:
            if stage is own.encode_images:
                self._encode_images(stage, phase)
            elif stage is own.loop:
                self._loop(stage, number, phase)
            else:
                self._add(stage)

    def closing(self) -> None:
        self._left -= self._started_from
        last = self._load.phases[-1]
        frames = mel_frames(self._load.audio_tokens)
        tiles = Tiles.of(last.frames, last.height, last.width, Tiling())
        audio, itemsize = self._costs.decode_audio, self._model.itemsize
        made = float(self._load.decodes_sound)
        # A GPU begins with the picture; see `Run`.
        works = decode_work(self._costs.decode_frames, tiles, itemsize)
        first, *others = works
        begun, rest = first.flops, sum(each.flops for each in others)
        if self._layouts[0].ranks > 1:
            # All devices decode a tile each, in turns; the last one makes the sound meanwhile.
            begun = (begun + rest) / tiles.count
            rest = (-(-tiles.count // self._layouts[0].ranks) - 1) * begun
        costs = {
            stages.DECODE_AUDIO: (
                begun + made * audio.flops_of(frames),
                max(first.nbytes, first.left + made * audio.nbytes_of(frames)),
            ),
            stages.DECODE_VIDEO: (
                rest,
                max(first.left, *(each.nbytes for each in others)) if others else first.left,
            ),
        }
        for stage in stages.CLOSING:
            self._add(stage, *costs.get(stage, (0.0, 0.0)))

    def _between(self, stage: Stage, previous: PhaseLoad) -> None:
        cost = self._costs.upsample if stage is stages.UPSAMPLE else NOTHING
        places = previous.frames * previous.height * previous.width
        self._add(stage, cost.flops_of(places), cost.nbytes_of(places))

    def _encode_images(self, stage: Stage, phase: PhaseLoad) -> None:
        """One after another; those that are encoded stay until the loop has ended."""
        if not phase.images:
            return
        cost, places = self._costs.encode_image, phase.height * phase.width
        self._add(
            stage,
            -(-phase.images // self._layouts[0].ranks) * cost.flops_of(places),
            # One image's pixels are in its cost too.
            (phase.images - 1) * self._video(1, phase)
            + cost.nbytes_of(places)
            - self._pixels(phase),
        )
        self._left -= phase.images * self._pixels(phase)

    def _loop(self, stage: Stage, number: int, phase: PhaseLoad) -> None:
        """All steps of a phase."""
        self._left -= self._noise(phase) + self._given
        self._given = 0  # it is in what the loop takes
        images = phase.images * self._video(1, phase)
        work = loop_work(phase, self._transformer, self._layouts[number], self._exchanges_captured)
        nbytes = round(self._left + images + work.activations)
        self.found.append(replace(work, stage=stage, activations=nbytes, phase=number))
        self._left += self._latents(phase) - self._looked_at
        self._looked_at = 0  # by the first phase only

    def _latents(self, phase: PhaseLoad) -> int:
        """Of a phase: what it starts from, and as much again that it leaves."""
        audio = phase.audio_tokens * self._model.transformer.audio.in_channels
        return self._video(phase.frames, phase) + audio * self._model.itemsize

    def _noise(self, phase: PhaseLoad) -> int:
        """Of a phase's tokens, appended ones too, in bfloat16 whatever the model is in."""
        video, audio = self._model.transformer.video, self._model.transformer.audio
        numbers = phase.video_tokens * video.in_channels + phase.audio_tokens * audio.in_channels
        return numbers * NOISE_BYTES

    def _pixels(self, phase: PhaseLoad) -> int:
        """Of an image, fitted to a phase's size."""
        sides = phase.height * phase.width * SPATIAL_SCALE**2
        return 3 * sides * self._model.itemsize

    def _video(self, frames: int, phase: PhaseLoad) -> int:
        channels = self._model.transformer.video.in_channels
        return frames * phase.height * phase.width * channels * self._model.itemsize

    def _add(self, stage: Stage, flops: float = 0.0, nbytes: float = 0.0) -> None:
        if stage.efficiency:
            self.found.append(StageWork(stage, flops, round(self._left + nbytes)))
