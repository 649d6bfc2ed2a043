"""The laws of the stages outside the transformer, found by running them on meta tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from entracte.errors import CheckpointError
from entracte.media.read_sound import CHANNELS as SOUND_CHANNELS
from entracte.models import mel
from entracte.models.audio_vae import CHANNELS, MEL_BINS, AudioVae
from entracte.models.connectors import Connectors
from entracte.models.gemma import MAX_TOKENS
from entracte.models.language_model import LanguageModel
from entracte.models.registry import ModelVersion
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import SPATIAL_SCALE, TEMPORAL_SCALE, VideoVae
from entracte.models.vocoder import Vocoder
from entracte.pipeline.latents import decode_audio, upsample

from .meta_ops import META
from .meter import Metered, meter


@dataclass(frozen=True, slots=True)
class Cost:
    """Arithmetic and memory that grow evenly with a size.

    flops, nbytes: for every unit of it. fixed_flops, fixed_nbytes: added once; may be negative.
    """

    flops: float
    nbytes: float
    fixed_flops: float = 0.0
    fixed_nbytes: float = 0.0

    def flops_of(self, size: float) -> float:
        return self.fixed_flops + self.flops * size

    def nbytes_of(self, size: float) -> float:
        return self.fixed_nbytes + self.nbytes * size


NOTHING = Cost(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class StageCosts:
    """Laws, each with its size. Bytes are of the model's dtype, results included.

    encode_text, connect_text: prompts, however long; as much memory as the longest one takes.
    encode_sound: frames of the mel spectrogram.
    encode_image: places of the latent grid, height times width; its pixels included.
    encode_frames: latent frames, for one place of the latent grid; their pixels included.
    upsample: places of the smaller latent grid, frames times height times width.
    decode_frames: latent frames, for one place (height, width) of a tile. A single latent frame
        takes a tenth more memory than the law says, which is of no weight.
    decode_audio: frames of the mel spectrogram, see `mel_frames`.
    """

    encode_text: Cost
    connect_text: Cost
    encode_sound: Cost
    encode_image: Cost
    encode_frames: Cost
    upsample: Cost
    decode_frames: Cost
    decode_audio: Cost


def mel_frames(audio_tokens: int) -> int:
    """How many frames of the mel spectrogram audio tokens become; the first is only one."""
    return 4 * audio_tokens - 3


C = TypeVar("C", bound=nn.Module)

# Large enough that what does not grow with the size is of no weight. Size costs no time here.
SIDE = 16
FRAMES = 8
AUDIO_TOKENS = 64
MEL_FRAMES = 256

# Two, because a decoded video has fewer than eight frames for every latent one: the first is one.
FEW_FRAMES, MANY_FRAMES = 2, 10


def trace_stages(
    modules: Mapping[str, nn.Module], version: ModelVersion, dtype: torch.dtype
) -> StageCosts:
    """The laws of a model's stages.

    modules: the components by name, on the meta device, in any dtype; they are converted. Without
        an upsampler upsampling costs nothing.
    Raises CheckpointError where another component is missing.
    """
    for name, module in modules.items():
        module.requires_grad_(False).to(version.dtype_of(name, dtype))
    vae = _component(modules, "video_vae", VideoVae)
    channels = len(vae.latents_mean)

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=META)

    encoder = _component(modules, "text_encoder", LanguageModel)
    tokens = torch.zeros(MAX_TOKENS, dtype=torch.int64, device=META)
    connectors = _component(modules, "connectors", Connectors)
    states = (MAX_TOKENS, encoder.width, encoder.layers + 1)
    audio_vae = _component(modules, "audio_vae", AudioVae)
    vocoder = _component(modules, "vocoder", Vocoder)
    audio = empty(1, CHANNELS, AUDIO_TOKENS, MEL_BINS)
    few = meter(lambda: vae.decode(empty(1, channels, FEW_FRAMES, SIDE, SIDE)))
    many = meter(lambda: vae.decode(empty(1, channels, MANY_FRAMES, SIDE, SIDE)))

    def see(frames: int) -> Metered:
        side = SIDE * SPATIAL_SCALE
        return meter(lambda: vae.encode(empty(1, 3, TEMPORAL_SCALE * (frames - 1) + 1, side, side)))

    few_seen, many_seen = see(FEW_FRAMES), see(MANY_FRAMES)
    return StageCosts(
        encode_text=_traced(lambda: encoder(tokens), 1),
        connect_text=_traced(lambda: connectors(empty(*states)), 1),
        encode_sound=_traced(
            lambda: audio_vae.encode(empty(1, SOUND_CHANNELS, MEL_FRAMES, mel.BINS)), MEL_FRAMES
        )
        if audio_vae.encodes
        else NOTHING,
        encode_image=_traced(
            lambda: vae.encode(empty(1, 3, 1, SIDE * SPATIAL_SCALE, SIDE * SPATIAL_SCALE)),
            SIDE * SIDE,
        ),
        encode_frames=_through(few_seen, many_seen, SIDE * SIDE),
        upsample=_upsample(modules, vae, empty(1, channels, FRAMES, SIDE, SIDE)),
        decode_frames=_through(few, many, SIDE * SIDE),
        decode_audio=_traced(
            lambda: decode_audio(audio_vae, vocoder, audio), mel_frames(AUDIO_TOKENS)
        ),
    )


def _component(modules: Mapping[str, nn.Module], name: str, kind: type[C]) -> C:
    module = modules.get(name)
    if not isinstance(module, kind):
        raise CheckpointError(f"the model has no {name}")
    return module


def _traced(compute: Callable[[], object], size: int) -> Cost:
    """A law in proportion to the size that was computed."""
    found = meter(compute)
    return Cost(found.flops / size, found.nbytes / size)


def _upsample(modules: Mapping[str, nn.Module], vae: VideoVae, latent: Tensor) -> Cost:
    if "upsampler" not in modules:
        return Cost(0.0, 0.0)
    upsampler = _component(modules, "upsampler", Upsampler)
    return _traced(lambda: upsample(upsampler, vae, latent), FRAMES * SIDE * SIDE)


def _through(few: Metered, many: Metered, places: int) -> Cost:
    """The law in the number of frames that goes through both, for one place."""
    more = (MANY_FRAMES - FEW_FRAMES) * places
    flops, nbytes = (many.flops - few.flops) / more, (many.nbytes - few.nbytes) / more
    return Cost(
        flops,
        nbytes,
        few.flops / places - flops * FEW_FRAMES,
        few.nbytes / places - nbytes * FEW_FRAMES,
    )
