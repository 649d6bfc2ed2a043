"""One run of a recipe: the stages in order, each with the components it borrows."""

from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from entracte.errors import MediaError, NotFinite
from entracte.files import write_atomically
from entracte.media.output import open_output
from entracte.models.audio_vae import AudioVae
from entracte.models.connectors import Connectors
from entracte.models.gemma import TextEncoder
from entracte.models.tiling import Tiling
from entracte.models.transformer import StreamRotary, Transformer
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder
from entracte.progress import Reporter
from entracte.recipes import LOOP_NAMES, Phase
from entracte.residency import BASE, DeviceManager, PhaseRun, WeightSet
from entracte.sampling.noise import DrawnNoise, NoiseSource
from entracte.sampling.tokens import Tokens, VideoGrid, audio_latent, video_latent
from entracte.trace.trace import Trace

from .cache import Cache
from .connect_text import TextContext, connect_text
from .decode_audio import decode_audio
from .decode_video import decode_video
from .denoise import UNGUIDED, denoise
from .encode_images import EncodedImage, FittedImage, encode_images, fit_images
from .encode_text import encode_text
from .finite import require_finite
from .prepare_latents import Latents, empty_latents, noise_sizes, prepare_latents
from .preview import Preview, PreviewCallback, Previewer
from .resolved import Prepared
from .upsample import upsample

# By a prompt's token ids, and the weights of the connectors.
Contexts = Cache[tuple[tuple[int, ...], WeightSet], TextContext]

# By grid, audio tokens and image frames.
RotaryTables = Cache[tuple[VideoGrid, int, tuple[int, ...]], tuple[StreamRotary, StreamRotary]]

# By what they were fitted in.
Previewers = Cache[torch.dtype, Previewer]


@dataclass(frozen=True, slots=True)
class OpenModel:
    """What all runs on an engine share."""

    manager: DeviceManager
    device: torch.device
    dtype: torch.dtype
    latent_channels: int
    contexts: Contexts
    rotary: RotaryTables
    previewers: Previewers


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is to come out of a run. preview: called with a small picture at every step."""

    path: Path | None
    latents_path: Path | None
    keep_frames: bool
    preview: PreviewCallback | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """What a run made, as in `Result`."""

    frames: Tensor | None
    audio: Tensor
    sample_rate: int
    latents: dict[str, Tensor]


class Run:
    """Carries one prepared request through its recipe."""

    def __init__(
        self,
        model: OpenModel,
        prepared: Prepared,
        trace: Trace,
        reporter: Reporter,
        outputs: Outputs,
    ) -> None:
        self._model = model
        self._manager = model.manager
        self._prepared = prepared
        self._request = prepared.request
        self._trace = trace
        self._reporter = reporter
        self._outputs = outputs
        self._previewer: Previewer | None = None
        self._latents: dict[str, Tensor] = {}

    def generate(self) -> Generated:
        """Run all stages. The latents are saved before anything is decoded.

        Raises NotFinite after the first stage whose numbers are not finite.
        """
        try:
            return self._generate()
        except NotFinite as error:
            raise NotFinite(f"{error}. {self._likely_causes()}") from None

    def _generate(self) -> Generated:
        latents_path = self._outputs.latents_path
        with ExitStack() as request:
            # Before any weights are on their way: what comes behind them has to wait.
            with self._trace.stage("prepare inputs", of_host=True):
                images = deque(map(self._fit_images, self._request.recipe.phases))
                noise = self._draw_noise()
            self._reporter.stage("load weights")
            with self._trace.stage("load weights", of_host=True):
                prepared = self._prepared
                weights = request.enter_context(
                    self._manager.request(prepared.weight_phases, prepared.lent)
                )
            if self._outputs.preview is not None:
                self._prepare_previews()
            made = self._phases(weights, noise, images)
            if latents_path is not None:
                _save_latents(latents_path, self._latents)
            audio, sample_rate = self._decode_audio(made[self._request.recipe.audio_phase])
            frames = self._decode_video(made[-1], audio, sample_rate)
        return Generated(frames, audio, sample_rate, self._latents)

    def _phases(
        self,
        weights: PhaseRun,
        noise: DrawnNoise,
        images: deque[list[FittedImage]],
    ) -> list[Latents]:
        """The latents of every phase. images: given up as soon as they are encoded."""
        contexts = [self._context(tokens) for tokens in self._prepared.prompts]
        made: list[Latents] = []
        for number, phase in enumerate(self._request.recipe.phases):
            start = self._upsample(made[-1]) if made else self._empty(phase)
            encoded = self._encode_images(phase, images.popleft())
            made.append(self._denoise(number, weights, start, encoded, noise, contexts))
            self._latents[f"{phase.name}.video_latent"] = made[-1].video.cpu()
            self._latents[f"{phase.name}.audio_latent"] = made[-1].audio.cpu()
        return made

    def _fit_images(self, phase: Phase) -> list[FittedImage]:
        model = self._model
        grid = self._prepared.grid(phase)
        return fit_images(self._prepared.images, grid, model.device, model.dtype)

    def _draw_noise(self) -> DrawnNoise:
        request, channels = self._request, self._model.latent_channels
        appended = sum(image.frame > 0 for image in self._prepared.images)
        sizes = [
            size
            for phase in request.recipe.phases
            for size in noise_sizes(
                self._prepared.grid(phase), channels, appended, request.audio_tokens
            )
        ]
        return DrawnNoise(NoiseSource(request.seed), sizes, self._model.device)

    def _context(self, tokens: Tensor) -> TextContext:
        def make() -> TextContext:
            self._trace.count("text_encodings")
            self._reporter.stage("encode text")
            with (
                self._trace.stage("encode text"),
                self._manager.borrow("text_encoder", TextEncoder) as encoder,
            ):
                states = encode_text(encoder, tokens, self._model.device)
                require_finite("encode text", states)
            self._reporter.stage("connect text")
            with (
                self._trace.stage("connect text"),
                self._manager.borrow("connectors", Connectors) as connectors,
            ):
                context = connect_text(connectors, states)
                require_finite("connect text", context.video, context.audio)
                return context

        weights = self._prepared.lent.get("connectors", BASE)
        return self._model.contexts.get((tuple(tokens.tolist()), weights), make)

    def _empty(self, phase: Phase) -> Latents:
        return empty_latents(
            self._prepared.grid(phase),
            self._model.latent_channels,
            self._request.audio_tokens,
            self._model.device,
            self._model.dtype,
        )

    def _upsample(self, previous: Latents) -> Latents:
        self._reporter.stage("upsample")
        with (
            self._trace.stage("upsample"),
            self._manager.borrow("upsampler", Upsampler) as upsampler,
            self._manager.borrow("video_vae", VideoVae) as vae,
        ):
            video = upsample(upsampler, vae, previous.video)
            require_finite("upsample", video)
        return Latents(video, previous.audio)

    def _encode_images(self, phase: Phase, images: list[FittedImage]) -> list[EncodedImage]:
        if not images:
            return []
        name = f"encode images ({phase.name})"
        self._reporter.stage(name)
        with self._trace.stage(name), self._manager.borrow("video_vae", VideoVae) as vae:
            encoded = encode_images(vae, images)
            require_finite(name, *(image.latent for image in encoded))
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
        phase = self._request.recipe.phases[number]
        grid, sigmas = self._prepared.grid(phase), self._prepared.sigmas(phase)
        with self._trace.stage(f"prepare latents ({phase.name})"):
            scale = 1.0 if phase.sigmas is None else phase.sigmas[0]
            video, audio = prepare_latents(start, grid, images, noise, scale)
        guidance = self._prepared.guidance if phase.guided else UNGUIDED
        passes, steps = len(guidance.passes()), len(sigmas) - 1
        name = LOOP_NAMES[phase.name]
        with ExitStack() as loans:
            self._reporter.stage(f"switch to {phase.name}")
            with self._trace.stage(f"switch to {phase.name}", of_host=True):
                transformer = loans.enter_context(weights.phase(number, Transformer))
            self._reporter.stage(name, steps)
            with self._trace.stage(name) as span:

                def on_step(step: int, clean: Tensor) -> None:
                    self._trace.step(span)
                    self._trace.count("forwards", passes)
                    self._reporter.step(step, steps, self._prepared.step_work(phase))
                    self._show(name, step, clean, grid)

                video_out, audio_out = denoise(
                    transformer,
                    video,
                    audio,
                    contexts if phase.guided else contexts[:1],
                    self._rotary(transformer, grid, video, audio),
                    sigmas,
                    guidance,
                    self._request.guidance_batch,
                    on_step,
                )
                require_finite(name, video_out, audio_out)
        return Latents(video_latent(video_out, grid), audio_latent(audio_out))

    def _prepare_previews(self) -> None:
        """Fit the model's colours, once for all runs of an engine."""
        model = self._model

        def fit() -> Previewer:
            with (
                self._trace.stage("prepare previews"),
                self._manager.borrow("video_vae", VideoVae) as vae,
            ):
                return Previewer.fit(vae, model.device, model.dtype)

        self._previewer = model.previewers.get(model.dtype, fit)

    def _show(self, stage: str, step: int, clean: Tensor, grid: VideoGrid) -> None:
        if self._outputs.preview is not None and self._previewer is not None:
            picture = self._previewer.picture(video_latent(clean, grid))
            self._outputs.preview(Preview(stage, step, picture))

    def _rotary(
        self, transformer: Transformer, grid: VideoGrid, video: Tokens, audio: Tokens
    ) -> tuple[StreamRotary, StreamRotary]:
        model = self._model
        appended = tuple(image.frame for image in self._prepared.images if image.frame > 0)
        return model.rotary.get(
            (grid, audio.latent.shape[1], appended),
            lambda: transformer.rotary(video.positions, audio.positions, model.device, model.dtype),
        )

    def _decode_audio(self, latents: Latents) -> tuple[Tensor, int]:
        self._reporter.stage("decode audio")
        with (
            self._trace.stage("decode audio"),
            self._manager.borrow("audio_vae", AudioVae) as vae,
            self._manager.borrow("vocoder", Vocoder) as vocoder,
        ):
            sound = decode_audio(vae, vocoder, latents.audio)
            require_finite("decode audio", sound)
            return sound, vocoder.sample_rate

    def _decode_video(self, latents: Latents, audio: Tensor, sample_rate: int) -> Tensor | None:
        """Decode, and encode into the output while later chunks still decode."""
        output, keep_frames = self._outputs.path, self._outputs.keep_frames
        kept: list[Tensor] = []
        size = self._request.output_height, self._request.output_width
        with ExitStack() as opened:
            writer = None
            if output is not None:
                writer = opened.enter_context(
                    open_output(output, self._request.frame_rate, audio, sample_rate)
                )
            self._reporter.stage("decode video")
            with (
                self._trace.stage("decode video"),
                self._manager.borrow("video_vae", VideoVae) as vae,
            ):
                for chunk in decode_video(vae, latents.video, Tiling(), *size):
                    if writer is not None:
                        with self._trace.host_work("encode"):
                            writer.write(chunk)
                    if keep_frames:
                        kept.append(chunk)
            if writer is not None:
                self._reporter.stage("mux")
                with self._trace.stage("mux", of_host=True):
                    opened.close()
        return torch.cat(kept) if keep_frames else None

    def _likely_causes(self) -> str:
        """Of numbers that are not finite."""
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
