"""The demonstration model: tiny, with fixed random weights, in exactly the published files.

It is for trying out the software; its videos are coloured noise.
"""

import json
import math
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import LTX2VideoUpsampler3d
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import Gemma3Config

from entracte.errors import MediaError
from entracte.files import ordinary_mode
from entracte.models import audio_vae, upsampler, video_vae, vocoder
from entracte.models.audio_vae import AudioVae
from entracte.models.connectors import Connectors
from entracte.models.gemma import TextEncoder
from entracte.models.transformer import Transformer, TransformerConfig
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder

from . import demo_config as sizes

CHECKPOINT = "ltx-2.3-demo-dev.safetensors"
DISTILLED_LORA = "ltx-2.3-demo-distilled-lora-8.safetensors"
UPSAMPLER = "ltx-2.3-demo-spatial-upscaler-x2.safetensors"
GEMMA = "gemma"

LORA_RANK = 8

# Parameters that torch gives no initial values.
LEARNED = (
    "learnable_registers",
    "keyframes_abs_pos_embedding",
    "query_tokens",
    "video_modality_emb",
    "audio_modality_emb",
)
SEED = 23


def write_demo_model(folder: Path) -> list[Path]:
    """Write all files of the demonstration model into a folder, created if missing.

    The weights are the same every time. Returns the files' paths. Raises MediaError if the system
    refuses to write.
    """
    try:
        (folder / GEMMA).mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            _write_checkpoint(folder / CHECKPOINT)
            write_lora(folder / DISTILLED_LORA, _transformer())
            write_upsampler(folder / UPSAMPLER)
            write_gemma(folder / GEMMA)
            mode = ordinary_mode(folder / f".mode-{uuid.uuid4().hex}")
            for name in (CHECKPOINT, DISTILLED_LORA, UPSAMPLER, f"{GEMMA}/model.safetensors"):
                (folder / name).chmod(mode)  # the library restricts it to its owner
    except OSError as error:
        raise MediaError(f"cannot write the model to {folder}: {error.strerror}") from error
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write_checkpoint(path: Path) -> None:
    text = sizes.GEMMA["text_config"]
    text_width = text["hidden_size"] * (text["num_hidden_layers"] + 1)
    tensors = {
        **published_weights(_transformer(), "model.diffusion_model.{}".format),
        **published_weights(Connectors(sizes.TRANSFORMER, text_width), connector_key),
        **published_weights(demo_video_vae(), lambda n: f"vae.{video_vae.module_to_file(n)}"),
        **sound_weights(sizes.VOCODER),
    }
    config = {
        "transformer": sizes.TRANSFORMER,
        "vae": sizes.VIDEO_VAE,
        "audio_vae": sizes.AUDIO_VAE,
        "vocoder": sizes.VOCODER,
    }
    save_file(tensors, path, {"config": json.dumps(config), "model_version": "2.3.0"})


def sound_weights(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of the audio autoencoder and a vocoder, whose config is given, by published key."""
    mel = published_weights(
        AudioVae(sizes.AUDIO_VAE), lambda n: f"audio_vae.{audio_vae.module_to_file(n)}"
    )
    waves = published_weights(Vocoder(config), lambda n: f"vocoder.{vocoder.module_to_file(n)}")
    return {**mel, **waves}


def write_lora(path: Path, transformer: Transformer) -> None:
    """Write a LoRA over every linear, as distilled LoRAs are."""
    tensors = {}
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            rank = min(LORA_RANK, module.in_features, module.out_features)
            down = torch.randn(rank, module.in_features) / module.in_features**0.5
            up = torch.randn(module.out_features, rank) * 0.05
            tensors[f"diffusion_model.{name}.lora_A.weight"] = down.bfloat16()
            tensors[f"diffusion_model.{name}.lora_B.weight"] = up.bfloat16()
    save_file(tensors, path)


def write_upsampler(path: Path) -> None:
    """Write the latent upsampler."""
    weights = published_weights(Upsampler(sizes.UPSAMPLER), upsampler.module_to_file)
    save_file(weights, path, {"config": json.dumps(sizes.UPSAMPLER)})


def write_gemma(folder: Path) -> None:
    """Write Gemma 3 and its tokenizer into an existing folder."""
    encoder = TextEncoder(Gemma3Config(**sizes.GEMMA))
    weights = published_weights(encoder, lambda name: f"language_model.{name}")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(sizes.GEMMA, indent=1))
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """Write the tokenizer, one token per byte, into an existing folder. Raises OSError."""
    vocabulary = [*sizes.SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate(vocabulary)}, [], unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary.index("<bos>"))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = dict(
        zip(("pad_token", "eos_token", "bos_token", "unk_token"), sizes.SPECIAL_TOKENS, strict=True)
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(special, indent=1))


def _transformer() -> Transformer:
    return Transformer(TransformerConfig.from_header(sizes.TRANSFORMER))


def demo_video_vae(config: Mapping[str, Any] = sizes.VIDEO_VAE) -> VideoVae:
    """With a decoder that shows soft patches of colour: all the pixels that a layer makes of one
    latent get the same weights (ICNR, arXiv 1707.02937), and the last layer's are raised.
    """
    vae = VideoVae(config)
    shuffles = [
        (block.conv.conv, math.prod(block.stride))
        for block in vae.decoder.up_blocks
        if isinstance(block, LTX2VideoUpsampler3d)
    ]
    for layer, pixels in [*shuffles, (vae.decoder.conv_out.conv, vae.decoder.patch**2)]:
        for tensor in (layer.weight.data, layer.bias.data):
            tensor.copy_(tensor[::pixels].repeat_interleave(pixels, dim=0))
    vae.decoder.conv_out.conv.weight.data.mul_(1.6)
    return vae


def connector_key(name: str) -> str:
    """A parameter of the connectors as the checkpoint's key."""
    return name if name.startswith("text_embedding_projection") else f"model.diffusion_model.{name}"


def published_weights(module: nn.Module, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """A module's tensors in bfloat16 by published key; linears and convolutions keep torch's
    initial weights, what has none of its own is filled here.
    """
    tensors = {}
    for name, tensor in module.state_dict().items():
        leaf = name.rsplit(".", 1)[-1]
        if "scale_shift_table" in leaf or leaf in LEARNED:
            tensor = torch.randn(tensor.shape) * 0.3
        elif leaf == "latents_mean":
            tensor = torch.zeros(tensor.shape)
        elif leaf in ("latents_std", "layer_scalar"):
            tensor = torch.ones(tensor.shape)
        elif leaf in ("forward_basis", "inverse_basis"):
            tensor = torch.randn(tensor.shape) * 0.05
        elif name.endswith("conv_out.weight") and tensor.dim() == 3:
            tensor = tensor * 0.2  # noise, but not loud noise
        elif leaf == "mel_basis":
            tensor = torch.rand(tensor.shape) * 0.05
        tensors[rename(name)] = tensor.detach().to(torch.bfloat16).contiguous()
    return tensors
