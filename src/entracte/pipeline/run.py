"""One run of a recipe: the stages in order, each with the components that it borrows."""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from entracte.errors import MediaError, NotFinite
from entracte.files import write_atomically
from entracte.media.output import open_output
from entracte.models.audio_vae import AudioVae
from entracte.models.calls import Call
from entracte.models.connectors import Connectors, TextContext
from entracte.models.decoders import Decoders
from entracte.models.gemma import TextEncoder
from entracte.models.tiling import Tiling
from entracte.models.transformer import StreamRotary, Transformer
from entracte.models.transformer.execution import RunBlocks
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder
from entracte.parallel import Mesh, SpreadTransformer
from entracte.progress import Reporter
from entracte.recipes import Phase
from entracte.residency import BASE, DeviceManager, ManagerPlan, PhaseRun, WeightSet
from entracte.sampling.denoiser import Denoiser
from entracte.sampling.noise import DrawnNoise, NoiseSource
from entracte.sampling.samplers import SAMPLERS
from entracte.sampling.tokens import (
    StreamLatents,
    Tokens,
    VideoGrid,
    audio_latent,
    video_latent,
)
from entracte.stages import (
    CONNECT_TEXT,
    DECODE_AUDIO,
    DECODE_VIDEO,
    ENCODE_TEXT,
    LOAD_WEIGHTS,
    MUX,
    PREPARE_INPUTS,
    PREPARE_PREVIEWS,
    UPSAMPLE,
    Stage,
)
from entracte.trace.trace import Trace

from .cache import Cache
from .conditions import (
    EncodedImage,
    FittedImage,
    connect_text,
    encode_images,
    encode_text,
    fit_images,
)
from .latents import (
    DecodedFrames,
    Latents,
    OwnStream,
    decode_audio,
    decode_video,
    empty_latents,
    noise_sizes,
    prepare_latents,
    require_finite,
    to_host,
    upsample,
)
from .preview import Preview, PreviewCallback, Previewer
from .resolved import PreparedRequest, ResolvedPhase

M = TypeVar("M", bound=nn.Module)

# By a prompt's token ids, and the weights of the connectors.
Contexts = Cache[tuple[tuple[int, ...], WeightSet], TextContext]

# By grid, audio tokens and image frames.
RotaryTables = Cache[tuple[VideoGrid, int, tuple[int, ...]], tuple[StreamRotary, StreamRotary]]

# By the dtype that they were fitted in.
Previewers = Cache[torch.dtype, Previewer]


@dataclass(frozen=True, slots=True)
class OpenModel:
    """State shared by all runs on an engine."""

    manager: DeviceManager
    device: torch.device
    dtype: torch.dtype
    latent_channels: int
    contexts: Contexts
    rotary: RotaryTables
    previewers: Previewers
    run_blocks: RunBlocks
    calls: Call
    decoders: Decoders
    mesh: Mesh | None = None  # the devices that make the video together, where there are several


@dataclass(frozen=True, slots=True)
class Outputs:
    """The wanted outputs of a run. preview: called with a small picture at every step."""

    path: Path | None
    latents_path: Path | None
    keep_frames: bool
    preview: PreviewCallback | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """The outputs of a run, as in `Result`."""

    frames: Tensor | None
    audio: Tensor
    sample_rate: int
    latents: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Begun:
    """A video whose sound is decoded. ahead: the frames, if any, that a GPU is at work on."""

    frames: Iterator[DecodedFrames]
    audio: Tensor
    sample_rate: int
    ahead: int


class Loans:
    """The components on loan to a stage, by their class."""

    def __init__(self, stage: Stage, components: Mapping[str, nn.Module]) -> None:
        self._stage = stage
        self._components = components

    def __getitem__(self, kind: type[M]) -> M:
        for component in self._components.values():
            if isinstance(component, kind):
                return component
        raise TypeError(f"the stage {self._stage.name!r} does not use a {kind.__name__}")


class Run:
    """Carries one prepared request through its recipe."""

    def __init__(
        self,
        model: OpenModel,
        prepared: PreparedRequest,
        plan: ManagerPlan,
        trace: Trace,
        reporter: Reporter,
        outputs: Outputs,
    ) -> None:
        self._model = model
        self._manager = model.manager
        self._prepared = prepared
        self._plan = plan
        self._resolved = prepared.resolved
        self._request = prepared.resolved.request
        self._trace = trace
        self._reporter = reporter
        self._outputs = outputs
        self._previewer: Previewer | None = None

    def generate(self) -> Generated:
        """Run all stages. The latents are saved before anything is decoded.

        Raises NotFinite after the first stage whose numbers are not finite.
        """
        try:
            return self._generate()
        except NotFinite as error:
            raise NotFinite(f"{error}. {self._likely_causes()}") from None

    def _generate(self) -> Generated:
        recipe, outputs = self._request.recipe, self._outputs
        latents: dict[str, Tensor] = {}
        with ExitStack() as request:
            made = self._phases(request, latents)
            if outputs.latents_path is not None:
                _save_latents(outputs.latents_path, latents)
            with ExitStack() as lending:
                begun = self._decode_audio(made[recipe.audio_phase], made[-1], lending)
                frames = self._decode_video(begun)
        return Generated(frames, begun.audio, begun.sample_rate, latents)

    def _phases(self, request: ExitStack, latents: dict[str, Tensor]) -> list[Latents]:
        """The latents of every phase, copied into `latents` by name, too.

        What only they need leaves the device with this method, before anything is decoded. The
        weights stay until `request` ends.
        """
        # Before any weights are on their way: a copy to the device would wait behind them.
        with self._enter(PREPARE_INPUTS):
            images = deque(map(self._fit_images, self._resolved.phases))
            noise = self._draw_noise()
        with self._enter(LOAD_WEIGHTS):
            weights = request.enter_context(self._manager.execute(self._plan))
        if self._outputs.preview is not None:
            self._prepare_previews()
        contexts = [self._context(tokens) for tokens in self._prepared.prompts]
        made: list[Latents] = []
        for number, each in enumerate(self._resolved.phases):
            start = self._upsample(made[-1]) if made else self._empty(each)
            # Popped, so that none stays on the device once it is encoded.
            encoded = self._encode_images(each.phase, images.popleft())
            made.append(self._denoise(number, weights, start, encoded, noise, contexts))
            latents[f"{each.phase.name}.video_latent"] = made[-1].video.cpu()
            latents[f"{each.phase.name}.audio_latent"] = made[-1].audio.cpu()
        return made

    @contextmanager
    def _enter(self, stage: Stage, steps: int = 0) -> Iterator[Loans]:
        """Report a stage, trace it, and borrow what it uses."""
        with self._note(stage, steps), ExitStack() as loans:
            yield self._borrow(stage, loans)

    @contextmanager
    def _note(self, stage: Stage, steps: int = 0) -> Iterator[None]:
        """Report a stage, and trace it."""
        if stage.label:
            self._reporter.stage(stage.name, steps)
        with self._trace.stage(stage.name, stage.on_host):
            yield

    def _borrow(self, stage: Stage, loans: ExitStack) -> Loans:
        borrow = self._manager.borrow
        return Loans(
            stage, {name: loans.enter_context(borrow(name, nn.Module)) for name in stage.uses}
        )

    def _fit_images(self, resolved: ResolvedPhase) -> list[FittedImage]:
        model = self._model
        return fit_images(self._prepared.images, resolved.grid, model.device, model.dtype)

    def _draw_noise(self) -> DrawnNoise:
        request, channels = self._request, self._model.latent_channels
        appended = len(self._resolved.appended_images)
        sizes = [
            size
            for phase in self._resolved.phases
            for size in noise_sizes(phase.grid, channels, appended, request.audio_tokens)
        ]
        return DrawnNoise(NoiseSource(request.seed), sizes, self._model.device)

    def _context(self, tokens: Tensor) -> TextContext:
        device, calls = self._model.device, self._model.calls

        def make() -> TextContext:
            self._trace.count("text_encodings")
            with self._enter(ENCODE_TEXT) as lent:
                states = encode_text(lent[TextEncoder], tokens, device, calls)
                require_finite(ENCODE_TEXT, states)
            with self._enter(CONNECT_TEXT) as lent:
                context = connect_text(lent[Connectors], states, calls)
                require_finite(CONNECT_TEXT, context.video, context.audio)
                return context

        weights = self._resolved.weights.lent.get("connectors", BASE)
        return self._model.contexts.get((tuple(tokens.tolist()), weights), make)

    def _empty(self, resolved: ResolvedPhase) -> Latents:
        return empty_latents(
            resolved.grid,
            self._model.latent_channels,
            self._request.audio_tokens,
            self._model.device,
            self._model.dtype,
        )

    def _upsample(self, previous: Latents) -> Latents:
        with self._enter(UPSAMPLE) as lent:
            video = upsample(lent[Upsampler], lent[VideoVae], previous.video)
            require_finite(UPSAMPLE, video)
        return Latents(video, previous.audio)

    def _encode_images(self, phase: Phase, images: list[FittedImage]) -> list[EncodedImage]:
        if not images:
            return []
        stage = phase.stages.encode_images
        with self._enter(stage) as lent:
            encoded = encode_images(lent[VideoVae], images)
            require_finite(stage, *(image.latent for image in encoded))
        return encoded

    def _denoise(
        self,
        number: int,
        weights: PhaseRun,
        start: Latents,
        images: list[EncodedImage],
        noise: DrawnNoise,
        contexts: list[TextContext],
    ) -> Latents:
        resolved = self._resolved.phases[number]
        grid, stages = resolved.grid, resolved.phase.stages
        with self._enter(stages.prepare_latents):
            video, audio = prepare_latents(start, grid, images, noise, resolved.phase.noise_scale)

        def on_step(step: int, clean: Tensor) -> None:
            self._trace.step()
            self._reporter.step(step, resolved.steps, resolved.step_work)
            self._show(stages.loop, step, clean, grid)

        with ExitStack() as held:
            with self._enter(stages.switch):
                transformer = held.enter_context(weights.phase(number, Transformer))
            with self._enter(stages.loop, resolved.steps):
                mesh = self._model.mesh
                denoiser = Denoiser(
                    transformer if mesh is None else SpreadTransformer(transformer, mesh),
                    video,
                    audio,
                    contexts[: resolved.contexts],
                    self._rotary(transformer, grid, video, audio),
                    resolved.guidance,
                    resolved.rows_at_once,
                    self._model.run_blocks,
                )
                sample, sigmas = (
                    SAMPLERS[resolved.phase.sampler].loop,
                    torch.tensor(resolved.sigmas),
                )
                noisy = StreamLatents(video.latent, audio.latent)
                made = sample(denoiser, noisy, sigmas, self._request.seed, on_step)
                require_finite(stages.loop, *made)
        self._trace.count("forwards", resolved.forwards)
        return Latents(video_latent(made.video, grid), audio_latent(made.audio))

    def _prepare_previews(self) -> None:
        """Fit the previewer, once for all runs of an engine."""
        model = self._model

        def fit() -> Previewer:
            with self._enter(PREPARE_PREVIEWS) as lent:
                return Previewer.fit(lent[VideoVae], model.device, model.dtype)

        self._previewer = model.previewers.get(model.dtype, fit)

    def _show(self, stage: Stage, step: int, clean: Tensor, grid: VideoGrid) -> None:
        if self._outputs.preview is not None and self._previewer is not None:
            picture = self._previewer.picture(video_latent(clean, grid))
            self._outputs.preview(Preview(stage.name, step, picture))

    def _rotary(
        self, transformer: Transformer, grid: VideoGrid, video: Tokens, audio: Tokens
    ) -> tuple[StreamRotary, StreamRotary]:
        model = self._model
        return model.rotary.get(
            (grid, audio.latent.shape[1], self._resolved.appended_images),
            lambda: transformer.rotary(video.positions, audio.positions, model.device, model.dtype),
        )

    def _decode_audio(self, sound: Latents, picture: Latents, lending: ExitStack) -> Begun:
        """Decode the sound; a GPU begins with the picture, and decodes the sound beside it.

        lending: ends the loans.
        """
        model = self._model
        size = self._request.output_height, self._request.output_width
        with self._note(DECODE_AUDIO):
            lent = self._borrow(DECODE_AUDIO, lending)
            vae, vocoder = lent[AudioVae], lent[Vocoder]
            decoders = model.decoders
            frames = decode_video(lent[VideoVae], picture.video, Tiling(), *size, decoders)
            beside = OwnStream(model.device)
            first = list(islice(frames, int(picture.video.is_cuda)))
            with beside.current():
                audio = decode_audio(vae, vocoder, sound.audio, decoders)
            require_finite(DECODE_AUDIO, audio)
        # By its iterator, which lets go of the list at its end.
        decoded = chain(iter(first), frames)
        return Begun(decoded, audio, vocoder.sample_rate, ahead=len(first))

    def _decode_video(self, begun: Begun) -> Tensor | None:
        """Decode, and encode into the output while later frames still decode."""
        request, output = self._request, self._outputs.path
        kept: Tensor | None = None
        with ExitStack() as opened:
            writer = None
            if output is not None:
                writer = opened.enter_context(
                    open_output(output, request.frame_rate, begun.audio, begun.sample_rate)
                )
            with self._note(DECODE_VIDEO):
                done = 0
                for frames in to_host(begun.frames, begun.ahead):
                    if writer is not None:
                        with self._trace.host_work("encode"):
                            writer.write(frames)
                    if self._outputs.keep_frames:
                        if kept is None:
                            kept = frames.new_empty((request.num_frames, *frames.shape[1:]))
                        kept[done : done + len(frames)] = frames
                    done += len(frames)
            if writer is not None:
                with self._note(MUX):
                    opened.close()
        return kept

    def _likely_causes(self) -> str:
        """Likely causes of NaN and infinities."""
        loras = [f"{each.path.name} at {each.strength:g}" for each in self._request.loras]
        causes = [f"a LoRA that is damaged or too strong ({', '.join(loras)})"] if loras else []
        if self._request.recipe.guided:
            causes.append("guidance scales that are too large")
        dtype = str(self._model.dtype).removeprefix("torch.")
        causes.append(f"weights that are damaged, or that {dtype} cannot compute with")
        return f"Likely causes: {'; '.join(causes)}"


def _save_latents(path: Path, latents: dict[str, Tensor]) -> None:
    try:
        with write_atomically(path) as part:
            save_file(latents, part)
    except SafetensorError as error:
        raise MediaError(f"cannot write {path}: {error}") from error
