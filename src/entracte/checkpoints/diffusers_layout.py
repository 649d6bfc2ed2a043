"""The diffusers layout: `model_index.json` and one folder a component.

Configs are translated to the form of published headers, and names to ours, so that no other file
depends on the layout.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from entracte.models.registry import VERSIONS, ModelVersion

from .diffusers_configs import (
    DiffusersConfig,
    audio_vae_config,
    connectors_config,
    require_ltx,
    transformer_config,
    translated,
    upsampler_config,
    vocoder_config,
)
from .diffusers_names import connectors_to_published, transformer_to_published
from .diffusers_vae import vae_config, vae_names
from .gemma4_file import is_gemma4_folder, open_gemma4_folder
from .gemma_folder import open_gemma
from .parts import require_readable
from .safetensors_file import SafetensorsFile
from .shards import shards
from .sources import ComponentSource, Located
from .versions import version_name

WEIGHTS = "diffusion_pytorch_model"
UPSAMPLER = "latent_upsampler"


def open_diffusers(folder: Path) -> tuple[ModelVersion, dict[str, ComponentSource]]:
    """The version and the components of a diffusers folder; no weight is read.

    Raises CheckpointError for another pipeline's or version's folder, or one that misses a
    component.
    """
    require_ltx(folder)
    components = {
        "text_encoder": _text_encoder(folder),
        "transformer": _open(folder, "transformer", transformer_config, _transformer_names),
        "connectors": _open(folder, "connectors", connectors_config, _connectors_names),
        "video_vae": _open(folder, "vae", vae_config, vae_names, "video_vae"),
        "audio_vae": _open(folder, "audio_vae", audio_vae_config, _nested_names),
        "vocoder": _open(folder, "vocoder", vocoder_config, _nested_names),
    }
    if (folder / UPSAMPLER).is_dir():
        components["upsampler"] = _open(
            folder, UPSAMPLER, upsampler_config, _nested_names, "upsampler"
        )
    name = version_name({}, {"transformer": components["transformer"].config}, folder)
    return VERSIONS[name], components


def _text_encoder(folder: Path) -> ComponentSource:
    root, tokenizer = folder / "text_encoder", folder / "tokenizer"
    if root.is_dir() and is_gemma4_folder(root):
        source, _ = open_gemma4_folder(root, tokenizer)
        return source
    return open_gemma(root, tokenizer=tokenizer)


def _open(
    folder: Path,
    subfolder: str,
    translate: Callable[[DiffusersConfig], dict[str, Any]],
    names: Callable[[DiffusersConfig], Callable[[str], str]],
    component: str | None = None,
) -> ComponentSource:
    root = folder / subfolder
    config, rename = translated(root, translate), translated(root, names)
    tensors: dict[str, Located] = {}
    for file in map(SafetensorsFile, shards(root, WEIGHTS)):
        require_readable(file)
        tensors |= {rename(key): Located(file, key) for key in file.tensors}
    return ComponentSource(component or subfolder, config, tensors)


def _transformer_names(_: DiffusersConfig) -> Callable[[str], str]:
    return transformer_to_published


def _connectors_names(_: DiffusersConfig) -> Callable[[str], str]:
    return connectors_to_published


def _nested_names(_: DiffusersConfig) -> Callable[[str], str]:
    return "model.{}".format
