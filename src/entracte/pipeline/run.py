"""One run of a recipe: the stages in order, each with the components that it borrows."""

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor

from entracte.errors import NotFinite
from entracte.models.audio_vae import AudioVae
from entracte.models.connectors import Connectors, TextContext
from entracte.models.language_model import LanguageModel
from entracte.models.tiling import Tiling, encode_tiled
from entracte.models.transformer import Evaluate, StreamRotary, Transformer
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.parallel import Layout, SpreadTransformer
from entracte.progress import Reporter
from entracte.recipes import Phase
from entracte.residency import BASE, ManagerPlan, PhaseRun
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
    ENCODE_SOUND,
    ENCODE_TEXT,
    ENCODE_VIDEO,
    LOAD_WEIGHTS,
    PREPARE_INPUTS,
    PREPARE_PREVIEWS,
    UPSAMPLE,
)
from entracte.trace.trace import Trace

from .conditions import (
    EncodedImage,
    FittedImage,
    connect_text,
    encode_images,
    encode_text,
    fit_images,
)
from .decoding import Begun, Decoding
from .given import encode_sound
from .latents import (
    Latents,
    empty_latents,
    noise_sizes,
    prepare_latents,
    require_finite,
    upsample,
)
from .once import once
from .outputs import Generated, Outputs, save_latents
from .preview import Preview, Previewer
from .references import EncodedControl
from .resolved import PreparedRequest, ResolvedPhase
from .runtime import Runtime
from .stage_runs import StageRuns
from .step_ends import StepEnds


class Run:
    """Carries one prepared request through its recipe. layouts: of each phase."""

    def __init__(
        self,
        model: Runtime,
        prepared: PreparedRequest,
        plan: ManagerPlan,
        layouts: Sequence[Layout],
        trace: Trace,
        reporter: Reporter,
        outputs: Outputs,
    ) -> None:
        self._model = model
        self._stages = StageRuns(model.manager, trace, reporter)
        self._prepared = prepared
        self._given = prepared.given
        self._plan = plan
        self._layouts = layouts
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
                save_latents(outputs.latents_path, latents)
            begun, frames = self._decode(made[recipe.audio_phase], made[-1])
        return Generated(frames, begun.audio, begun.sample_rate, latents)

    def _decode(self, sound: Latents, picture: Latents) -> tuple[Begun, Tensor | None]:
        decoding = Decoding(self._model, self._request, self._outputs, self._stages, self._trace)
        with ExitStack() as lending:
            begun = decoding.begin(sound, picture, lending, self._given.heard)
            return begun, decoding.finish(begun)

    def _phases(self, request: ExitStack, latents: dict[str, Tensor]) -> list[Latents]:
        """The latents of every phase, copied into `latents` by name, too.

        What only they need leaves the device with this method, before anything is decoded. The
        weights stay until `request` ends.
        """
        # Before any weights are on their way: a copy to the device would wait behind them.
        with self._stages.enter(PREPARE_INPUTS):
            images = deque(map(self._fit_images, self._resolved.phases))
            noise = self._draw_noise()
            frames, mel, *seen = (
                None if each is None else each.to(self._model.device, self._model.dtype)
                for each in (
                    self._given.frames,
                    self._given.mel,
                    *(control.pixels for control in self._given.controls),
                )
            )
        with self._stages.enter(LOAD_WEIGHTS):
            weights = request.enter_context(self._model.manager.execute(self._plan))
        if self._outputs.preview is not None:
            self._prepare_previews()
        contexts = self._contexts()
        video = self._encode_video(frames)
        del frames  # before more is made
        controls = self._encode_controls(seen)
        given = video, self._encode_sound(mel)
        del mel, video
        made: list[Latents] = []
        for number, each in enumerate(self._resolved.phases):
            start = self._upsample(made[-1]) if made else self._start(each, *given)
            # Popped, so that none stays on the device once it is encoded.
            encoded = self._encode_images(each.phase, images.popleft())
            made.append(self._denoise(number, weights, start, encoded, controls, noise, contexts))
            controls = []  # only the first phase looks at them
            latents[f"{each.phase.name}.video_latent"] = made[-1].video.cpu()
            latents[f"{each.phase.name}.audio_latent"] = made[-1].audio.cpu()
        return made

    def _fit_images(self, resolved: ResolvedPhase) -> list[FittedImage]:
        model = self._model
        return fit_images(self._prepared.images, resolved.grid, model.device, model.dtype)

    def _draw_noise(self) -> DrawnNoise:
        request, channels = self._request, self._model.latent_channels
        sizes = [
            size
            for phase in self._resolved.phases
            for size in noise_sizes(
                phase.grid.tokens + self._resolved.appended_tokens(phase),
                channels,
                request.audio_tokens,
            )
        ]
        return DrawnNoise(NoiseSource(request.seed), sizes, self._model.device)

    def _contexts(self) -> list[TextContext]:
        """Of all prompts; ranks share out those that are new."""
        model, prompts = self._model, self._prepared.prompts
        weights = self._resolved.weights.lent.get("connectors", BASE)
        keys = [(tuple(tokens.tolist()), weights) for tokens in prompts]
        new = {
            key: partial(self._encode, tokens)
            for key, tokens in zip(keys, prompts, strict=True)
            if key not in model.contexts
        }
        like = torch.empty(0, dtype=model.dtype, device=model.device)
        made = once(model.mesh, list(new.values()), 2, like)
        told = {key: TextContext(*each) for key, each in zip(new, made, strict=True)}
        return [model.contexts.get(key, partial(told.__getitem__, key)) for key in keys]

    def _encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """A prompt's contexts."""
        device, calls = self._model.device, self._model.calls
        self._trace.count("text_encodings")
        with self._stages.enter(ENCODE_TEXT) as lent:
            states = encode_text(lent[LanguageModel], tokens, device, calls)
            require_finite(ENCODE_TEXT, states)
        with self._stages.enter(CONNECT_TEXT) as lent:
            context = connect_text(lent[Connectors], states)
            require_finite(CONNECT_TEXT, context.video, context.audio)
        return context.video, context.audio

    def _encode_video(self, frames: Tensor | None, whole: bool = False) -> Tensor | None:
        """The latents of a video, if one is given. whole: not in tiles."""
        if frames is None:
            return None
        with self._stages.enter(ENCODE_VIDEO) as lent:
            encode = lent[VideoVae].encode
            if not whole:
                encode = partial(encode_tiled, encode, tiling=Tiling())
            work = [lambda: (encode(frames),)]
            ((latent,),) = once(self._model.mesh, work, 1, frames)
            require_finite(ENCODE_VIDEO, latent)
        return latent

    def _encode_controls(self, pixels: list[Tensor | None]) -> list[EncodedControl]:
        """The latents of the control videos, whose pixels are given back one by one: the list is
        emptied.
        """
        made = []
        for control in self._given.controls:
            frames = pixels.pop(0)
            latent = self._encode_video(frames, whole=True)
            assert latent is not None
            made.append(EncodedControl(latent, control.weights, control.reference))
        return made

    def _encode_sound(self, mel: Tensor | None) -> Tensor | None:
        """The latents of the sound that is given, if one is."""
        if mel is None:
            return None
        with self._stages.enter(ENCODE_SOUND) as lent:
            vae, tokens = lent[AudioVae], self._request.audio_tokens
            work = [lambda: (encode_sound(vae, mel, tokens),)]
            ((latent,),) = once(self._model.mesh, work, 1, mel)
            require_finite(ENCODE_SOUND, latent)
        return latent

    def _start(
        self, resolved: ResolvedPhase, video: Tensor | None, audio: Tensor | None
    ) -> Latents:
        """What the first phase starts from: what is given, and zeros."""
        empty = empty_latents(
            resolved.grid,
            self._model.latent_channels,
            self._request.audio_tokens,
            self._model.device,
            self._model.dtype,
        )
        return Latents(
            empty.video if video is None else video, empty.audio if audio is None else audio
        )

    def _upsample(self, previous: Latents) -> Latents:
        with self._stages.enter(UPSAMPLE) as lent:
            video = upsample(lent[Upsampler], lent[VideoVae], previous.video)
            require_finite(UPSAMPLE, video)
        return Latents(video, previous.audio)

    def _encode_images(self, phase: Phase, images: list[FittedImage]) -> list[EncodedImage]:
        if not images:
            return []
        stage = phase.stages.encode_images
        with self._stages.enter(stage) as lent:
            vae = lent[VideoVae]

            def encode(image: FittedImage) -> tuple[Tensor]:
                (encoded,) = encode_images(vae, [image])
                return (encoded.latent,)

            work = [partial(encode, image) for image in images]
            latents = once(self._model.mesh, work, 1, images[0].pixels)
            require_finite(stage, *(latent for (latent,) in latents))
        return [
            EncodedImage(latent, each.frame, each.strength)
            for (latent,), each in zip(latents, images, strict=True)
        ]

    def _denoise(
        self,
        number: int,
        weights: PhaseRun,
        start: Latents,
        images: list[EncodedImage],
        controls: list[EncodedControl],
        noise: DrawnNoise,
        contexts: list[TextContext],
    ) -> Latents:
        resolved = self._resolved.phases[number]
        grid, stages = resolved.grid, resolved.phase.stages
        with self._stages.enter(stages.prepare_latents):
            video, audio = prepare_latents(
                start,
                grid,
                images,
                noise,
                resolved.phase.noise_scale,
                self._request.recipe.appends_first_image,
                (self._given.video, self._given.audio),
                controls,
            )

        def tell(step: int, picture: Tensor | None) -> None:
            self._reporter.step(step, resolved.steps, resolved.step_work)
            if self._outputs.preview is not None and picture is not None:
                self._outputs.preview(Preview(stages.loop.name, step, picture))

        ends = StepEnds(tell, in_step=self._model.mesh is not None)

        def on_step(step: int, clean: Tensor) -> None:
            picture = self._picture(clean, grid)
            ends.enqueued(step, self._trace.step(), picture)

        with ExitStack() as held:
            with self._stages.enter(stages.switch):
                transformer = held.enter_context(weights.phase(number, Transformer))
            with self._stages.enter(stages.loop, resolved.steps):
                denoiser = Denoiser(
                    self._spread(transformer, self._layouts[number]),
                    video,
                    audio,
                    self._heard(contexts[: resolved.contexts]),
                    self._rotary(transformer, resolved, video, audio),
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
                ends.wait()
                require_finite(stages.loop, *made)
        self._trace.count("forwards", resolved.forwards)
        return Latents(video_latent(made.video, grid), audio_latent(made.audio))

    def _heard(self, contexts: list[TextContext]) -> list[TextContext]:
        """Of a given sound nothing is to be avoided, so it attends to the prompt alone."""
        if self._given.heard is None:
            return contexts
        return [TextContext(each.video, contexts[0].audio) for each in contexts]

    def _spread(self, transformer: Transformer, layout: Layout) -> Evaluate:
        mesh = self._model.mesh
        return transformer if mesh is None else SpreadTransformer(transformer, mesh, layout)

    def _prepare_previews(self) -> None:
        """Fit the previewer, once for all runs of an engine."""
        model = self._model

        def fit() -> Previewer:
            with self._stages.enter(PREPARE_PREVIEWS) as lent:
                return Previewer.fit(lent[VideoVae], model.device, model.dtype)

        self._previewer = model.previewers.get(model.dtype, fit)

    def _picture(self, clean: Tensor, grid: VideoGrid) -> Tensor | None:
        """A preview of a step's estimate, where one is wanted."""
        if self._outputs.preview is None or self._previewer is None:
            return None
        return self._previewer.picture(video_latent(clean, grid))

    def _rotary(
        self, transformer: Transformer, resolved: ResolvedPhase, video: Tokens, audio: Tokens
    ) -> tuple[StreamRotary, StreamRotary]:
        model = self._model
        return model.rotary.get(
            (
                resolved.grid,
                audio.latent.shape[1],
                self._resolved.appended_images,
                resolved.references,
            ),
            lambda: transformer.rotary(video.positions, audio.positions, model.device, model.dtype),
        )

    def _likely_causes(self) -> str:
        """Likely causes of NaN and infinities."""
        loras = [f"{each.path.name} at {each.strength:g}" for each in self._request.loras]
        causes = [f"a LoRA that is damaged or too strong ({', '.join(loras)})"] if loras else []
        if self._request.recipe.guided:
            causes.append("guidance scales that are too large")
        dtype = str(self._model.dtype).removeprefix("torch.")
        causes.append(f"weights that are damaged, or that {dtype} cannot compute with")
        return f"Likely causes: {'; '.join(causes)}"
