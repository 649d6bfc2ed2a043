"""The decoders' fused kernels against torch's operators: on a GPU, or interpreted."""

import os

import pytest
import torch
from diffusers.pipelines.ltx2.vocoder import AntiAliasAct1d
from torch import Tensor

from entracte.models.decoders import PLAIN
from entracte.models.video_vae import VideoDecoder

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")

# All strides, and a width that is no power of two.
CONFIG = {
    "patch_size": 2,
    "spatial_padding_mode": "zeros",
    "latent_channels": 4,
    "out_channels": 3,
    "decoder_base_channels": 6,
    "decoder_blocks": [
        ["res_x", {"num_layers": 2}],
        ["compress_time", {"multiplier": 1}],
        ["compress_space", {"multiplier": 2}],
        ["res_x", {"num_layers": 1}],
        ["compress_all", {"multiplier": 2}],
    ],
}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)).to(DEVICE)


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


# The interpreter cuts bfloat16 numbers instead of rounding them.
@pytest.mark.parametrize(
    ("dtype", "close"),
    [(torch.float32, 1e-5), *([] if INTERPRETED else [(torch.bfloat16, 3e-2)])],
)
@pytest.mark.parametrize("residual", [False, True])
def test_a_video(dtype: torch.dtype, close: float, residual: bool) -> None:
    from entracte.models.kernels.decoding import FusedDecoders

    blocks = [[kind, given | {"residual": residual}] for kind, given in CONFIG["decoder_blocks"]]
    torch.manual_seed(1)
    decoder = VideoDecoder(CONFIG | {"decoder_blocks": blocks}).to(DEVICE, dtype)
    latents = random(1, 4, 2, 1, 2).to(dtype)
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.inference_mode():
            fused = FusedDecoders().video(decoder, latents)
            assert distance(fused, PLAIN.video(decoder, latents)) < close
            assert torch.equal(fused, FusedDecoders().video(decoder, latents))
    finally:
        torch.backends.cudnn.allow_tf32 = True


@pytest.mark.sampled(1)
@pytest.mark.parametrize("samples", [1, 2, 1025])
def test_an_activation(samples: int) -> None:
    from entracte.models.kernels.decoding import activated

    activation = AntiAliasAct1d("snakebeta", channels=3).to(DEVICE)
    with torch.inference_mode():
        activation.act.alpha.copy_(random(3))
        activation.act.beta.copy_(random(3))
        x = random(2, 3, samples)
        assert distance(activated(activation, x), activation(x)) < 1e-5
