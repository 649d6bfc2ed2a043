"""Resolves requests: settles, or refuses, all that can be without a weight."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from entracte.binding import BoundRequest, bind_to_model
from entracte.checkpoints.lora import WHOLE, LoraFile, ReferenceScale
from entracte.checkpoints.sources import ModelSource
from entracte.errors import CheckpointError, LoraError, RequestError
from entracte.media.read_video import VideoFacts, video_facts
from entracte.models.gemma import Tokenizer
from entracte.notices import Notice
from entracte.recipes import Guidance, Phase, Recipe
from entracte.request import Request
from entracte.residency import Adapter, WeightSet
from entracte.sampling.denoiser import UNGUIDED, GuidancePlan
from entracte.sampling.samplers import SAMPLERS
from entracte.sampling.schedules import USUAL_TOKENS, shifted_sigmas
from entracte.sampling.tokens import VideoGrid
from entracte.versions import Defaults

from .conditions import prepare_images
from .given import read_given, sized_by_source
from .lora_cache import Loras, OpenLora
from .references import references_of
from .resolved import PreparedRequest, RequestWeights, ResolvedPhase, ResolvedRequest

logger = logging.getLogger(__name__)


# This many tokens keep a GPU busy; larger batches are no faster.
BATCH_TOKENS = 8192


def resolve(
    request: Request,
    defaults: Defaults,
    layers: int,
    weights: RequestWeights,
    on_gpu: bool = False,
    controls: Sequence[VideoFacts | None] | None = None,
) -> ResolvedRequest:
    """Resolve what can be counted of a request.

    defaults: of the model's version. layers: of its transformer. on_gpu: whether guidance passes
    are computed together where the request leaves it open. controls: what is known of each control
    video; by default as long as the video.
    Raises RequestError where a value contradicts them.
    """
    bound = bind_to_model(request, defaults, layers)
    audio_guidance = Guidance() if bound.recipe.takes_sound else bound.audio_guidance
    guidance = GuidancePlan(bound.video_guidance, audio_guidance)
    phases_of_version = defaults.phases(bound.recipe)
    grids = [_grid(bound, phase) for phase in phases_of_version]
    room = max(BATCH_TOKENS, *(grid.tokens for grid in grids)) if on_gpu else 0
    facts = (None,) * len(bound.controls) if controls is None else controls
    phases = tuple(
        replace(
            _resolve_phase(bound, phase, grid, weight_set, guidance, room),
            references=references_of(bound, phase, grid, weights.reference, facts),
        )
        for phase, grid, weight_set in zip(
            phases_of_version, grids, weights.transformer, strict=True
        )
    )
    largest = max(phase.rows_at_once for phase in phases)
    bound = bound.model_copy(update={"guidance_batch": largest})
    return ResolvedRequest(bound, layers, phases, weights)


def _grid(bound: BoundRequest, phase: Phase) -> VideoGrid:
    return VideoGrid.of_pixels(
        bound.num_frames,
        bound.height // phase.divisor,
        bound.width // phase.divisor,
        bound.frame_rate,
    )


def _resolve_phase(
    bound: BoundRequest,
    phase: Phase,
    grid: VideoGrid,
    weights: WeightSet,
    guidance: GuidancePlan,
    room: int,
) -> ResolvedPhase:
    """room: the tokens that a batch may have where the request leaves its passes open."""
    if not phase.guided:
        guidance = UNGUIDED
    passes = len(guidance.passes())
    sigmas = phase.sigmas
    if sigmas is None:
        assert bound.num_inference_steps is not None  # only fixed phases have no number of steps
        tokens = grid.tokens if phase.shifted_by_size else USUAL_TOKENS
        try:
            sigmas = tuple(shifted_sigmas(bound.num_inference_steps, tokens).tolist())
        except ValueError as error:
            raise RequestError(
                f"height, width, num_frames: {error}, as the {bound.pipeline} pipeline's is; ask "
                "for fewer pixels or frames"
            ) from None
    return ResolvedPhase(
        phase=phase,
        grid=grid,
        sigmas=sigmas,
        guidance=guidance,
        evaluations=SAMPLERS[phase.sampler].evaluations(len(sigmas) - 1),
        rows_at_once=bound.guidance_batch or min(passes, max(1, room // grid.tokens)),
        weights=weights,
    )


class Resolver:
    """Resolves requests on one open model, and prepares what they are computed with."""

    def __init__(self, source: ModelSource, loras: Loras, on_gpu: bool) -> None:
        self._source = source
        self._on_gpu = on_gpu
        self._loras = loras
        vocabulary = source.components["text_encoder"].config["text_config"]["vocab_size"]
        self._tokenizer = Tokenizer(source.tokenizer, vocabulary)
        self._defaults = source.version.defaults
        self._layers: int = source.components["transformer"].config["num_layers"]

    def resolve(self, request: Request) -> ResolvedRequest:
        """Resolve what can be counted. Raises RequestError, CheckpointError and LoraError.

        Of a source of the request, the header and a frame are read; raises MediaError.
        """
        self._require_files(request.recipe)
        weights = self._weights_of(request)
        request = sized_by_source(request)
        # One that is not there yet is read before anything is computed.
        controls = [
            video_facts(each.path) if each.path.exists() else None for each in request.controls
        ]
        return resolve(request, self._defaults, self._layers, weights, self._on_gpu, controls)

    def prepare(self, request: Request) -> PreparedRequest:
        """Resolve a request, tokenise its prompts, and read its images, sound or source.

        Raises MediaError, too.
        """
        resolved = self.resolve(request)
        if request.recipe.distilled_checkpoint and not request.loras:
            self._warn_of_base_checkpoint(request.recipe)
        return PreparedRequest(
            resolved,
            self.tokens(resolved),
            prepare_images(resolved.request.images),
            read_given(resolved.request, resolved.phases[0].references),
        )

    def tokens(self, resolved: ResolvedRequest) -> tuple[Tensor, ...]:
        """The tokens of the prompts that are encoded; raises RequestError for too many."""
        request = resolved.request
        texts = [("prompt", request.prompt), ("negative_prompt", request.negative_prompt)]
        return tuple(
            self._tokenizer.encode(text, request.truncate_prompt, name)
            for name, text in texts[: resolved.prompts]
        )

    def _require_files(self, recipe: Recipe) -> None:
        if recipe.upsamples and "upsampler" not in self._source.components:
            raise CheckpointError(
                f"the {recipe.name} pipeline needs the latent upsampler: give "
                "`spatial_upsampler_path`, or put it into the model's folder",
                settings=("spatial_upsampler_path",),
            )
        sound = self._source.components["audio_vae"].tensors
        if recipe.gives and not any(name.startswith("model.encoder.") for name in sound):
            raise CheckpointError(
                f"the {recipe.name} pipeline needs the audio encoder, which this checkpoint lacks"
            )
        if recipe.uses_distilled_lora and self._source.distilled_lora is None:
            raise CheckpointError(
                f"the {recipe.name} pipeline needs the distilled LoRA: give `distilled_lora`, or "
                "put it into the model's folder",
                settings=("distilled_lora",),
            )

    def _warn_of_base_checkpoint(self, recipe: Recipe) -> None:
        located = next(iter(self._source.components["transformer"].tensors.values()))
        if "-dev" in located.file.path.name:
            logger.warning(
                "the %s pipeline is given a base checkpoint; use a distilled one, or add the "
                "distilled LoRA to the request's",
                recipe.name,
            )

    def _weights_of(self, request: Request) -> RequestWeights:
        recipe = request.recipe
        loras = [
            (self._loras.open(lora.path, partial=lora.partial), lora.strength)
            for lora in request.loras
        ]
        return RequestWeights(
            transformer=tuple(self._weight_set(loras, phase) for phase in recipe.phases),
            lent=_lent(loras),
            notices=self._notices(loras, recipe),
            reference=_reference_scale([lora.file for lora, _ in loras]),
        )

    def _weight_set(self, loras: Sequence[tuple[OpenLora, float]], phase: Phase) -> WeightSet:
        """The transformer's weights in a phase: the request's LoRAs, and then the distilled one."""
        loras = loras if phase.takes_loras else ()
        if phase.distilled and self._source.distilled_lora is not None:
            file, strength = self._source.distilled_lora
            distilled = self._loras.open(file.path, file)
            loras = [*loras, (distilled, strength * phase.distilled)]
        return _weight_set("transformer", loras)

    def _notices(
        self, loras: Sequence[tuple[OpenLora, float]], recipe: Recipe
    ) -> tuple[Notice, ...]:
        """The notices of every LoRA, including the distilled one if the recipe uses it."""
        opened = [lora for lora, _ in loras]
        if recipe.uses_distilled_lora and self._source.distilled_lora is not None:
            file, _ = self._source.distilled_lora
            opened.append(self._loras.open(file.path, file))
        found = [notice for lora in opened for notice in lora.file.notices]
        if recipe.needs != "control":
            found += [
                Notice(lora.file.path, "it is made to look at a control video, and none is given")
                for lora in opened
                if lora.file.reference is not None
            ]
        return tuple(found)


def _reference_scale(files: Sequence[LoraFile]) -> ReferenceScale:
    """What the IC-LoRAs among them say. Raises LoraError where they contradict each other."""
    said = {file.reference: file for file in files if file.reference is not None}
    if len(said) > 1:
        raise LoraError(
            list(said.values())[-1].path,
            "it looks at control videos of another scale than another LoRA of the request",
        )
    return next(iter(said), WHOLE)


def _lent(loras: Sequence[tuple[OpenLora, float]]) -> dict[str, WeightSet]:
    """The connectors' weights, if LoRAs of the request change them.

    Text is connected once, before all phases, so the distilled LoRA does not apply to them.
    """
    weights = _weight_set("connectors", loras)
    return {"connectors": weights} if weights.adapters else {}


def _weight_set(component: str, loras: Sequence[tuple[OpenLora, float]]) -> WeightSet:
    """A component's weights, with those LoRAs that change it."""
    return WeightSet(
        tuple(
            Adapter(lora.name, strength)
            for lora, strength in loras
            if strength != 0 and lora.changes(component)
        )
    )
