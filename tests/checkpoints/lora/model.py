"""A small model's parameters, LoRA files for it, and what they make of its weights."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from entracte.checkpoints.lora import LoraFile, open_lora, open_lora_file
from entracte.residency.merge import merge

ATTENTION = "transformer_blocks.0.attn1"
CONNECTOR = "video_embeddings_connector.transformer_1d_blocks.0.attn1"
RANK = 4


def _attention(name: str, width: int, inputs: int) -> dict[str, tuple[int, ...]]:
    sizes = {"to_q": (width, width), "to_k": (width, inputs), "to_v": (width, inputs)}
    sizes["to_out.0"] = (width, width)
    weights = {f"{name}.{layer}.weight": size for layer, size in sizes.items()}
    biases = {f"{name}.{layer}.bias": size[:1] for layer, size in sizes.items()}
    return weights | biases | {f"{name}.q_norm.weight": (width,)}


SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "transformer": {
        "patchify_proj.weight": (16, 8),
        "patchify_proj.bias": (16,),
        "adaln_single.linear.weight": (32, 16),
        **_attention(ATTENTION, 16, 16),
        **_attention("transformer_blocks.1.attn1", 16, 16),
        "transformer_blocks.0.ff.net.0.proj.weight": (64, 16),
        "transformer_blocks.0.ff.net.0.proj.bias": (64,),
        "transformer_blocks.0.scale_shift_table": (9, 16),
        "transformer_blocks.0.scale_shift_table_a2v_ca_video": (5, 16),
    },
    "connectors": {
        **_attention(CONNECTOR, 16, 16),
        "text_embedding_projection.video_aggregate_embed.weight": (16, 24),
    },
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def pair(name: str, a: str = "lora_A.weight", b: str = "lora_B.weight") -> dict[str, Tensor]:
    """Factors of a [16, 16] weight."""
    return {f"{name}.{a}": random(RANK, 16), f"{name}.{b}": random(16, RANK, seed=1)}


def write(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Safetensors writes no tensor twice.
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path, metadata)
    return path


def opened(path: Path, partial: bool = False) -> LoraFile:
    return open_lora(open_lora_file(path), SHAPES, partial)


def added(
    lora: LoraFile,
    parameter: str,
    component: str = "transformer",
    weight: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """A float32 parameter (default: zeros) with the LoRA merged in."""
    change = lora.changes[component][parameter]
    tensors = {}
    for part, tensor in change.tensors.items():
        tensors[part] = torch.empty(tensor.shape, dtype=tensor.dtype)
        lora.read(component, parameter, part, tensors[part])
    if weight is None:
        weight = torch.zeros(SHAPES[component][parameter])
    return merge(weight, [(change.over(tensors), strength)])
