"""Models with random weights, to measure speed without files; their videos are noise."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from entracte.checkpoints.gemma_folder import TOKENIZER
from entracte.checkpoints.published import open_checkpoint, open_upsampler
from entracte.checkpoints.sources import ComponentSource, Located, ModelSource
from entracte.errors import MediaError
from entracte.models import gemma, gemma4
from entracte.models.formats import Format
from entracte.models.formats.schemes import TRANSFORMER, format_in

from .demo import write_tokenizer
from .random_file import Numbers, RandomFile
from .random_sizes import ModelSizes, TensorShapes, full_sizes, medium_sizes

RandomSize = Literal["full", "medium"]

SIZES: Mapping[RandomSize, Callable[[str], ModelSizes]] = MappingProxyType(
    {"full": full_sizes, "medium": lambda _: medium_sizes()}
)


def random_model(
    size: RandomSize,
    folder: Path,
    blocks: int | None = None,
    weights: str | None = None,
    version: str = "2.3",
) -> ModelSource:
    """A version of LTX with all its components and its distilled LoRA, with random weights.

    They are views of a few small buffers, the same every time; what reads them copies from memory.

    size: "full" is the published model tensor by tensor, with a text encoder as large as Gemma 3
        12B, 71 GB and a LoRA of 8; "medium" is one of 0.4 GB that a CPU can run.
    folder: for the tokenizer's two small files; created if missing.
    blocks: how many the transformer has, instead of all.
    weights: how the transformer's are stored, one of `SCHEMES` (default: bfloat16).
    version: by its name; "medium" is always LTX-2.3.

    Raises MediaError if the system refuses to write them.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / TOKENIZER).exists():  # another process may be reading it
            write_tokenizer(folder)
    except OSError as error:
        raise MediaError(f"cannot write a tokenizer to {folder}: {error.strerror}") from error
    sizes, numbers = SIZES[size](version), Numbers()
    if blocks is not None:
        sizes = sizes.with_blocks(blocks)
    # No such files are there, but the folder is: a planner asks how fast its disk is.
    checkpoint = RandomFile(
        folder / "random-checkpoint",
        sizes.checkpoint,
        numbers,
        sizes.config,
        {"model_version": f"{sizes.version}.0"},
        {} if weights is None else _formats(sizes, weights),
    )
    opened, components = open_checkpoint([checkpoint])
    components["upsampler"] = open_upsampler(
        RandomFile(folder / "random-upsampler", sizes.upsampler, numbers, sizes.upsampler_config)
    )
    text = RandomFile(folder / "random-text-encoder", sizes.gemma, numbers)
    rename = gemma4.file_to_module if opened.own_gemma else gemma.file_to_module
    located = {rename(key): Located(text, key) for key in sizes.gemma}
    components["text_encoder"] = ComponentSource(
        "text_encoder",
        sizes.gemma_config,
        {name: each for name, each in located.items() if name is not None},
    )
    lora = _lora_shapes(components["transformer"], sizes.lora_rank)
    distilled = RandomFile(folder / "random-distilled-lora", lora, numbers)
    return ModelSource(opened, components, folder, (distilled, 1.0))


def _formats(sizes: ModelSizes, weights: str) -> dict[str, Format]:
    prefix, layers = "model.diffusion_model.", sizes.config["transformer"]["num_layers"]
    found = {
        key: format_in(weights, key.removeprefix(prefix), TRANSFORMER, layers)
        for key in sizes.checkpoint
    }
    return {key: each for key, each in found.items() if each is not None}


def _lora_shapes(transformer: ComponentSource, rank: int) -> TensorShapes:
    """The factors of a LoRA on every linear, the only modules whose weights have two axes."""
    shapes: TensorShapes = {}
    for name, located in transformer.tensors.items():
        shape = located.info.shape
        if name.endswith(".weight") and len(shape) == 2:
            module = f"diffusion_model.{name.removesuffix('.weight')}"
            fitting = min(rank, *shape)
            shapes[f"{module}.lora_A.weight"] = (fitting, shape[1])
            shapes[f"{module}.lora_B.weight"] = (shape[0], fitting)
    return shapes
