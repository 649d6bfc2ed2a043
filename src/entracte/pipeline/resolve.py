"""Preparing requests: everything that can be settled, or refused, without a weight."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from entracte.binding import bind
from entracte.checkpoints.sources import ModelSource
from entracte.errors import CheckpointError, RequestError
from entracte.models.gemma import Tokenizer
from entracte.notices import Notice
from entracte.recipes import Guidance, Phase, Recipe
from entracte.request import Request
from entracte.residency import Adapter, WeightSet
from entracte.sampling.denoiser import GuidancePlan
from entracte.versions import Defaults

from .conditions import PreparedImage, prepare_images
from .lora_cache import Loras, OpenLora
from .resolved import Prepared

logger = logging.getLogger(__name__)


class Preparer:
    """Prepares requests for one open model."""

    def __init__(self, source: ModelSource, loras: Loras) -> None:
        self._source = source
        self._loras = loras
        vocabulary = source.components["text_encoder"].config["text_config"]["vocab_size"]
        self._tokenizer = Tokenizer(source.tokenizer, vocabulary)
        self._defaults = source.version.defaults

    def prepare(self, request: Request) -> Prepared:
        """Everything. Raises RequestError, CheckpointError, LoraError and MediaError."""
        outline = self.outline(request)
        if request.recipe.name == "distilled" and not request.loras:
            self._warn_of_base_checkpoint()
        return replace(
            outline,
            prompts=self.tokens(outline),
            images=prepare_images(request.images, self._defaults.image_crf),
        )

    def outline(self, request: Request) -> Prepared:
        """A request without the tokens of its prompts and the pixels of its images."""
        defaults = self._defaults
        request = bind(request, defaults)
        recipe = request.recipe
        self._require_files(recipe)
        layers: int = self._source.components["transformer"].config["num_layers"]
        plan = GuidancePlan(
            _with_blocks(request.video_guidance, "video", defaults, layers),
            _with_blocks(request.audio_guidance, "audio", defaults, layers),
        )
        negative = recipe.guided and "unconditioned" in plan.passes()
        loras = self._loras_of(request)
        return Prepared(
            request=request,
            guidance=plan,
            prompts=[torch.empty(0)] * (2 if negative else 1),
            images=[
                PreparedImage(np.empty(0), each.frame, each.strength) for each in request.images
            ],
            weight_sets=[self._weight_set(loras, phase) for phase in recipe.phases],
            lent=_lent(loras),
            notices=self._notices(loras, recipe),
        )

    def tokens(self, outline: Prepared) -> list[Tensor]:
        """Those of the prompts that an outline wants; raises RequestError for too many."""
        request = outline.request
        texts = [("prompt", request.prompt), ("negative_prompt", request.negative_prompt)]
        return [
            self._tokenizer.encode(text, request.truncate_prompt, name)
            for name, text in texts[: len(outline.prompts)]
        ]

    def _require_files(self, recipe: Recipe) -> None:
        if recipe.upsamples and "upsampler" not in self._source.components:
            raise CheckpointError(
                f"the {recipe.name} pipeline needs the latent upsampler: give "
                "`spatial_upsampler_path`, or put it into the model's folder",
                settings=("spatial_upsampler_path",),
            )
        if recipe.uses_distilled_lora and self._source.distilled_lora is None:
            raise CheckpointError(
                f"the {recipe.name} pipeline needs the distilled LoRA: give `distilled_lora`, or "
                "put it into the model's folder",
                settings=("distilled_lora",),
            )

    def _warn_of_base_checkpoint(self) -> None:
        located = next(iter(self._source.components["transformer"].tensors.values()))
        if "-dev" in located.file.path.name:
            logger.warning(
                "the distilled pipeline is given a base checkpoint; use a distilled one, or add "
                "the distilled LoRA to the request's"
            )

    def _weight_set(self, loras: Sequence[tuple[OpenLora, float]], phase: Phase) -> WeightSet:
        """The transformer's in a phase: the request's LoRAs, and then the distilled one."""
        if phase.distilled and self._source.distilled_lora is not None:
            file, strength = self._source.distilled_lora
            distilled = self._loras.open(file.path, file)
            loras = [*loras, (distilled, strength * phase.distilled)]
        return _weight_set("transformer", loras)

    def _notices(
        self, loras: Sequence[tuple[OpenLora, float]], recipe: Recipe
    ) -> tuple[Notice, ...]:
        """Of every LoRA, the distilled one among them where the recipe uses it."""
        opened = [lora for lora, _ in loras]
        if recipe.uses_distilled_lora and self._source.distilled_lora is not None:
            file, _ = self._source.distilled_lora
            opened.append(self._loras.open(file.path, file))
        return tuple(notice for lora in opened for notice in lora.file.notices)

    def _loras_of(self, request: Request) -> list[tuple[OpenLora, float]]:
        return [
            (self._loras.open(lora.path, partial=lora.partial), lora.strength)
            for lora in request.loras
        ]


def _lent(loras: Sequence[tuple[OpenLora, float]]) -> dict[str, WeightSet]:
    """The connectors' weights, where LoRAs of the request change them.

    Text is connected once, before all phases, so the distilled LoRA is no part of them.
    """
    weights = _weight_set("connectors", loras)
    return {"connectors": weights} if weights.adapters else {}


def _weight_set(component: str, loras: Sequence[tuple[OpenLora, float]]) -> WeightSet:
    """A component's, under those LoRAs that change it."""
    return WeightSet(
        tuple(
            Adapter(lora.name, strength)
            for lora, strength in loras
            if strength != 0 and lora.changes(component)
        )
    )


def _with_blocks(guidance: Guidance, stream: str, defaults: Defaults, layers: int) -> Guidance:
    blocks = guidance.stg_blocks
    if blocks is None:
        blocks = (round(defaults.stg_depth * layers),)
    if any(block >= layers for block in blocks):
        raise RequestError(
            f"{stream}_guidance: stg_blocks has block {max(blocks)}; the transformer has blocks 0 "
            f"to {layers - 1}"
        )
    return replace(guidance, stg_blocks=blocks)
