"""Located tensors into modules."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from transformers import Gemma3Config

from entracte.errors import CheckpointError
from entracte.models.audio_vae import AudioVae
from entracte.models.component import Component
from entracte.models.connectors import Connectors
from entracte.models.gemma import TextEncoder
from entracte.models.transformer import Transformer, TransformerConfig
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder

from .sources import ComponentSource


def _connectors(source: ComponentSource) -> Connectors:
    projection = source.tensors.get("text_embedding_projection.video_aggregate_embed.weight")
    if projection is None:
        raise CheckpointError("the checkpoint has no text_embedding_projection")
    return Connectors(source.config, text_width=projection.info.shape[1])


BUILDERS: Mapping[str, Callable[[ComponentSource], Component]] = MappingProxyType(
    {
        "text_encoder": lambda source: TextEncoder(Gemma3Config(**source.config)),
        "connectors": _connectors,
        "transformer": lambda source: Transformer(TransformerConfig.from_header(source.config)),
        "video_vae": lambda source: VideoVae(source.config),
        "audio_vae": lambda source: AudioVae(source.config),
        "vocoder": lambda source: Vocoder(source.config),
        "upsampler": lambda source: Upsampler(source.config),
    }
)

# Components that run in one dtype whatever the model's is.
FIXED_DTYPES: Mapping[str, torch.dtype] = MappingProxyType({"vocoder": torch.float32})


def build_component(source: ComponentSource) -> Component:
    """A component without storage, checked against its source, name by name and shape by shape.

    Raises CheckpointError where a tensor is missing, left over, or of another shape.
    """
    with torch.device("meta"):
        try:
            module = BUILDERS[source.name](source)
        except KeyError as missing:
            raise CheckpointError(f"{source.name}: its config has no {missing}") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: located.info.shape for name, located in source.tensors.items()}
    for problem, names in (
        ("misses", wanted.keys() - found.keys()),
        ("has no place for", found.keys() - wanted.keys()),
        (
            "has another shape for",
            {n for n in wanted.keys() & found.keys() if wanted[n] != found[n]},
        ),
    ):
        if names:
            raise CheckpointError(
                f"{source.name}: the checkpoint {problem} {len(names)} of {len(wanted)} tensors, "
                f"the first {min(names)}"
            )
    return module


def load_component(source: ComponentSource, device: torch.device, dtype: torch.dtype) -> Component:
    """A component with its weights, copied once from the files to where they stay."""
    module = build_component(source)
    dtype = FIXED_DTYPES.get(source.name, dtype)
    module.load_state_dict(
        {
            name: located.tensor().to(device, dtype, copy=True)
            for name, located in source.tensors.items()
        },
        assign=True,
    )
    module.restore_buffers()
    module.to(device)
    return freeze(module)


def freeze(module: Component) -> Component:
    """Ready for inference: no gradients, no dropout, no tensor without storage."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_meta:
            raise RuntimeError(f"{name} was built but never filled")
    module.eval()
    module.requires_grad_(False)
    return module
