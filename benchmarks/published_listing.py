"""Write the list of LTX-2.0's published tensors, by the sizes that diffusers has for that version.

diffusers' names and config are translated as for a folder in its layout. The upsampler is that of
LTX-2.3.

    python benchmarks/published_listing.py
"""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from torch import nn

from entracte.checkpoints.diffusers_configs import (
    audio_vae_config,
    connectors_config,
    transformer_config,
    vocoder_config,
)
from entracte.checkpoints.diffusers_names import connectors_to_published, transformer_to_published
from entracte.checkpoints.diffusers_vae import vae_config, vae_names
from entracte.checkpoints.published_sizes import published_listing
from entracte.models import audio_vae, video_vae, vocoder
from entracte.synthetic.demo import connector_key

TARGET = Path(__file__).parent.parent / "src/entracte/checkpoints/data/ltx-2.0-full.json.gz"


def listing() -> dict[str, Any]:
    """As `published_listing` returns it."""
    with torch.device("meta"):
        transformer = LTX2VideoTransformer3DModel(rope_type="split")
        connectors = LTX2TextConnectors(rope_type="split")
        video = AutoencoderKLLTX2Video(decoder_causal=False)
        audio = AutoencoderKLLTX2Audio()
        sound = LTX2Vocoder()
    rename = vae_names(video.config)
    tensors = {
        **_shapes(transformer, lambda n: f"model.diffusion_model.{transformer_to_published(n)}"),
        **_shapes(connectors, lambda n: connector_key(connectors_to_published(n))),
        **_shapes(video, lambda n: f"vae.{video_vae.module_to_file(rename(n))}"),
        **_shapes(audio, lambda n: f"audio_vae.{audio_vae.module_to_file(f'model.{n}')}"),
        **_shapes(sound, lambda n: f"vocoder.{vocoder.module_to_file(f'model.{n}')}"),
    }
    config = {
        "transformer": transformer_config(transformer.config)
        | connectors_config(connectors.config),
        "vae": vae_config(video.config),
        "audio_vae": audio_vae_config(audio.config),
        "vocoder": vocoder_config(sound.config),
    }
    # What the checkpoint's own header says otherwise, or not at all.
    del config["transformer"]["use_prompt_adaln_single"]
    return {
        "metadata": {"config": config, "model_version": "2.0.0"},
        "tensors": tensors,
        "upsampler": published_listing("2.3")["upsampler"],
    }


def _shapes(module: nn.Module, key: Callable[[str], str]) -> Mapping[str, list[int]]:
    return {key(name): list(tensor.shape) for name, tensor in module.state_dict().items()}


def main() -> None:
    packed = gzip.compress(json.dumps(listing()).encode(), mtime=0)
    TARGET.write_bytes(packed)
    print(f"{TARGET}: {len(packed):,} bytes")


if __name__ == "__main__":
    main()
