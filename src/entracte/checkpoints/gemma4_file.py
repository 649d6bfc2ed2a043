"""LTX-2.5's text encoder: one file with a Gemma 4, the text projections and the tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from entracte.errors import CheckpointError
from entracte.models import gemma4
from entracte.models.gemma import TokenizerText

from .gemma_folder import CONFIG, STEM, TOKENIZER, GemmaConfig
from .json_file import first_problem, parse_object, read_json
from .parts import PROJECTION
from .safetensors_file import SafetensorsFile
from .shards import shards
from .sources import ComponentSource, Located, TensorFile

NAME = "gemma4-12b-with-proj-ltx-2.5-bf16.safetensors"
KINDS = ("gemma4", "gemma4_unified")
VERSION = "gemma_version"

# What only a Gemma 4 has, by its names in ComfyUI's layout and in Hugging Face's.
MARKS = (
    "model.layers.0.layer_scalar",
    "model.language_model.layers.0.layer_scalar",
)
TOKENIZER_TENSOR = "tokenizer_json"
MOST_TEXT = 64 * 2**20

REFUSED = (
    "LTX-2.5 was trained with a Gemma 4 of its own, whose file also has the text projection "
    f"({NAME}); a stock Gemma encodes text otherwise"
)


@dataclass(frozen=True, slots=True)
class Gemma4Source:
    """The text encoder; its tokenizer; and the text projections, by the connectors' names.

    version: of the fine-tuning, which the transformer's has to equal; None where none is declared.
    """

    component: ComponentSource
    tokenizer: TokenizerText
    projections: Mapping[str, Located]
    version: str | None


def is_gemma4(file: TensorFile) -> bool:
    return any(mark in file.tensors for mark in MARKS)


def open_gemma4(file: TensorFile) -> Gemma4Source:
    """The text encoder of a file; only its tokenizer is read.

    Raises CheckpointError for a Gemma 4 that is not LTX-2.5's, or a damaged one.
    """
    projections = {key: Located(file, key) for key in file.tensors if key.startswith(PROJECTION)}
    if not is_gemma4(file) or not projections:
        raise CheckpointError(f"{file.path} is not the text encoder: {REFUSED}")
    try:
        config = parse_object(file.metadata.get("gemma_config", "{}"))
    except ValueError as error:
        raise CheckpointError(f"{file.path}: its gemma_config is not JSON: {error}") from None
    config = _checked(config, file.path)
    tokenizer = TokenizerText(file.path, _tokenizer(file), _start(config, file.path))
    component = ComponentSource("text_encoder", config, _language_half(file))
    return Gemma4Source(component, tokenizer, projections, config.get(VERSION))


def is_gemma4_folder(root: Path) -> bool:
    return read_json(root / CONFIG).get("model_type") in KINDS


def open_gemma4_folder(root: Path, tokenizer: Path) -> tuple[ComponentSource, TokenizerText]:
    """The text encoder of a folder in diffusers' layout, whose projections are elsewhere."""
    config = _checked(read_json(root / CONFIG), root / CONFIG)
    tensors: dict[str, Located] = {}
    for file in map(SafetensorsFile, shards(root, STEM)):
        tensors |= _language_half(file)
    try:
        text = (tokenizer / TOKENIZER).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{tokenizer} has no readable {TOKENIZER}: {error}") from None
    start = _start(config, root)
    source = ComponentSource("text_encoder", config, tensors)
    return source, TokenizerText(tokenizer / TOKENIZER, text, start)


def require_same_gemma(transformer: TensorFile, text: Gemma4Source) -> None:
    """Raise CheckpointError unless a transformer was trained with this text encoder."""
    declared = transformer.metadata.get("gemma_source_checkpoint")
    if declared is None:
        if text.version is None:
            return
        raise CheckpointError(
            f"{transformer.path} does not say which text encoder it was trained with "
            f"(gemma_source_checkpoint); {text.tokenizer.path} is {text.version}"
        )
    try:
        wanted = parse_object(declared).get(VERSION)
    except ValueError as error:
        raise CheckpointError(
            f"{transformer.path}: its gemma_source_checkpoint is not JSON: {error}"
        ) from None
    if wanted != text.version:
        raise CheckpointError(
            f"{transformer.path} was trained with the text encoder {wanted}; "
            f"{text.tokenizer.path} is {text.version}"
        )


def _checked(config: dict[str, Any], where: Path) -> dict[str, Any]:
    if config.get("model_type") not in KINDS or "text_config" not in config:
        raise CheckpointError(
            f"{where} has the config of a {config.get('model_type')!r:.40} model, not of a Gemma 4"
        )
    try:
        GemmaConfig.model_validate(config)
    except ValidationError as error:
        raise CheckpointError(f"{where}: {first_problem(error)}") from None
    return config


def _start(config: Mapping[str, Any], where: Path) -> int:
    start = config["text_config"].get("bos_token_id")
    if type(start) is not int or start < 0:
        raise CheckpointError(f"{where}: its config has bos_token_id={start!r:.40}")
    return start


def _language_half(file: TensorFile) -> dict[str, Located]:
    named = {key: gemma4.file_to_module(key) for key in file.tensors}
    return {name: Located(file, key) for key, name in named.items() if name is not None}


def _tokenizer(file: TensorFile) -> str:
    info = file.tensors.get(TOKENIZER_TENSOR)
    if info is None or info.dtype not in (torch.uint8, torch.int8) or info.nbytes > MOST_TEXT:
        raise CheckpointError(f"{file.path} has no {TOKENIZER_TENSOR}")
    held = torch.empty(info.shape, dtype=info.dtype)
    file.read(TOKENIZER_TENSOR, held)
    try:
        return held.view(torch.uint8).numpy().tobytes().decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file.path}: its {TOKENIZER_TENSOR} is no text: {error}") from None
