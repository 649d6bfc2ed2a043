"""The engine: opens a model, owns its device manager, runs a recipe on a request."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from entracte.cache import Cache
from entracte.checkpoints.loading import load_component
from entracte.checkpoints.lora import LoraFile, open_lora
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import ModelSource
from entracte.errors import CheckpointError, RequestError
from entracte.files import require_writable
from entracte.media.output import check_output
from entracte.models.gemma import Tokenizer
from entracte.prepared import Prepared
from entracte.progress import ProgressCallback, Reporter
from entracte.recipes import DEFAULTS, Defaults, Phase, Recipe
from entracte.request import Request
from entracte.residency.merge import Factors
from entracte.residency.resident import ResidentManager
from entracte.residency.weight_sets import Adapter, WeightSetKey
from entracte.result import Result
from entracte.run import OpenModel, Run
from entracte.sampling.guidance import Guidance
from entracte.stages.denoise import GuidancePlan
from entracte.stages.prepare_images import prepare_images
from entracte.trace.trace import Trace

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

# Contexts kept, 12.6 MB each at full size in bfloat16.
CACHED_PROMPTS = 32

# Shapes whose rotary tables are kept, up to 0.4 GB each at the largest sizes.
CACHED_SHAPES = 4

# What every recipe needs.
COMPONENTS = ("text_encoder", "connectors", "transformer", "video_vae", "audio_vae", "vocoder")


class Engine:
    """An open model. Generations run one after another; the engine may be shared by threads."""

    def __init__(self, source: ModelSource, device: torch.device, dtype: torch.dtype) -> None:
        missing = [name for name in COMPONENTS if name not in source.components]
        if missing:
            raise CheckpointError(f"the model has no {', '.join(missing)}")
        self.source = source
        self.tokenizer = Tokenizer(source.tokenizer)
        self._loras: dict[Path, LoraFile] = {}
        self._factors: dict[str, dict[str, Factors]] = {}
        self._one_at_a_time = threading.Lock()
        self._model = OpenModel(
            manager=ResidentManager(
                {
                    name: partial(load_component, component, device, dtype)
                    for name, component in source.components.items()
                },
                adapted="transformer",
                read_factors=self._read_factors,
            ),
            device=device,
            dtype=dtype,
            latent_channels=source.components["video_vae"].config["latent_channels"],
            contexts=Cache(CACHED_PROMPTS),
            rotary=Cache(CACHED_SHAPES),
        )

    @classmethod
    def open(
        cls,
        model: str | Path | None = None,
        *,
        checkpoint_path: str | Path | tuple[str | Path, ...] | None = None,
        gemma_root: str | Path | None = None,
        distilled_lora: str | Path | tuple[str | Path, float] | None = None,
        spatial_upsampler_path: str | Path | None = None,
        pipeline: str = "two-stage",
        device: str = "auto",
        dtype: str = "bfloat16",
    ) -> Self:
        """Open a model: find its files and read their headers. Weights are read when first used.

        model: a folder, or a hub repository. Explicit paths win over what it holds.
        distilled_lora: a path, or a path and a strength.
        pipeline: which checkpoint to prefer where the model has a base and a distilled one.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        dtype: "bfloat16", as the model was trained, or "float32".

        Raises CheckpointError where files are missing, damaged, or another model's.
        """
        if dtype not in DTYPES:
            raise RequestError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
        paths = ModelPaths(
            checkpoint=_paths(checkpoint_path),
            gemma_root=None if gemma_root is None else Path(gemma_root),
            upsampler=None if spatial_upsampler_path is None else Path(spatial_upsampler_path),
            distilled_lora=_path_and_strength(distilled_lora),
        )
        source = open_model(
            None if model is None else str(model), paths, distilled=pipeline == "distilled"
        )
        return cls(source, pick_device(device), DTYPES[dtype])

    def generate(
        self,
        request: Request,
        *,
        output_path: str | Path | None = None,
        latents_path: str | Path | None = None,
        progress: ProgressCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
        keep_frames: bool = True,
    ) -> Result:
        """Make a video with sound.

        output_path: an .mp4 file, or an existing folder for PNG frames and a WAV file.
        latents_path: a safetensors file for every phase's latents.
        progress: called at every stage and step. should_stop: asked there; True ends the run.
        keep_frames: whether the result carries the frames, 3 bytes a pixel.

        Raises RequestError, CheckpointError or MediaError before any weight is read where the
        request cannot be carried out; MediaError where the output cannot be written; Cancelled.
        """
        with self._one_at_a_time, torch.inference_mode():
            trace = Trace(self._model.device)
            with trace.stage("validate"):
                output = None if output_path is None else Path(output_path)
                latents = None if latents_path is None else Path(latents_path)
                if output is not None:
                    check_output(output)
                if latents is not None:
                    require_writable(latents)
                prepared = self.prepare(request)
            reporter = Reporter(prepared.work, progress, should_stop)
            run = Run(self._model, prepared, trace, reporter)
            return run.generate(output, latents, keep_frames)

    def prepare(self, request: Request) -> Prepared:
        """Everything about a request that can be settled, or refused, without a weight."""
        recipe, defaults = request.recipe, self.defaults
        self._require_files(recipe)
        layers: int = self.source.components["transformer"].config["num_layers"]
        plan = GuidancePlan(
            _with_blocks(request.video_guidance, "video", defaults, layers),
            _with_blocks(request.audio_guidance, "audio", defaults, layers),
        )
        prompts = [self.tokenizer.encode(request.prompt, request.truncate_prompt)]
        if recipe.guided and "unconditioned" in plan.passes():
            prompts.append(self.tokenizer.encode(request.negative_prompt, request.truncate_prompt))
        if recipe.name == "distilled" and not request.loras:
            self._warn_of_base_checkpoint()
        return Prepared(
            request=request,
            guidance=plan,
            prompts=prompts,
            images=prepare_images(request.images, defaults.image_crf),
            weight_sets=[self._weight_set(request, phase) for phase in recipe.phases],
        )

    @property
    def defaults(self) -> Defaults:
        """What requests leave open, for this model's version."""
        return DEFAULTS[self.source.version]

    def _require_files(self, recipe: Recipe) -> None:
        if recipe.upsamples and "upsampler" not in self.source.components:
            raise CheckpointError(
                f"the {recipe.name} pipeline needs the latent upsampler: give "
                "--spatial-upsampler-path, or put it into the model's folder"
            )
        if recipe.uses_distilled_lora and self.source.distilled_lora is None:
            raise CheckpointError(
                f"the {recipe.name} pipeline needs the distilled LoRA: give --distilled-lora, or "
                "put it into the model's folder"
            )

    def _warn_of_base_checkpoint(self) -> None:
        located = next(iter(self.source.components["transformer"].tensors.values()))
        if "-dev" in located.file.path.name:
            logger.warning(
                "the distilled pipeline is given a base checkpoint; use a distilled one, or add "
                "the distilled LoRA with --lora"
            )

    def _weight_set(self, request: Request, phase: Phase) -> WeightSetKey:
        adapters = [(lora.path, lora.strength) for lora in request.loras]
        if phase.distilled and self.source.distilled_lora is not None:
            file, strength = self.source.distilled_lora
            self._open_lora(file.path, file)
            adapters.append((file.path, strength * phase.distilled))
        for path, _ in adapters:
            self._open_lora(path)
        return tuple(Adapter(str(path), strength) for path, strength in adapters)

    def _open_lora(self, path: Path, file: SafetensorsFile | None = None) -> LoraFile:
        """The LoRA at a path, matched to the transformer; `file` where it is open already."""
        if path not in self._loras:
            tensors = self.source.components["transformer"].tensors
            shapes = {name: located.info.shape for name, located in tensors.items()}
            lora = open_lora(file or SafetensorsFile(path), shapes)
            if lora.unmatched:
                logger.warning(
                    "%d keys of a LoRA fit nothing in the transformer and are left out, the first "
                    "%s; %d modules are adapted",
                    len(lora.unmatched),
                    lora.unmatched[0],
                    len(lora.pairs),
                )
            self._loras[path] = lora
        return self._loras[path]

    def _read_factors(self, name: str) -> Mapping[str, Factors]:
        if name not in self._factors:
            pairs = self._open_lora(Path(name)).pairs
            self._factors[name] = {module: pair.load() for module, pair in pairs.items()}
        return self._factors[name]


def pick_device(name: str) -> torch.device:
    """A device by its name; raises RequestError for one that this machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(f"device {name!r} is none of auto, cpu, cuda, cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"device {name!r} is none of auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(f"device {name!r} is not there: torch sees no such CUDA device")
    return device


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


def _paths(given: str | Path | tuple[str | Path, ...] | None) -> tuple[Path, ...]:
    if given is None:
        return ()
    return tuple(map(Path, given)) if isinstance(given, tuple) else (Path(given),)


def _path_and_strength(given: Any) -> tuple[Path, float] | None:
    if given is None:
        return None
    path, strength = given if isinstance(given, tuple) else (given, 1.0)
    return Path(path), float(strength)
