"""The same spectrogram gives the same samples."""

import pytest
import torch
from diffusers.pipelines.ltx2.vocoder import AntiAliasAct1d
from torch import Tensor

from entracte.checkpoints.published_sizes import published_listing
from entracte.models.vocoder import Vocoder, activated
from entracte.synthetic import demo_config


def test_sums_are_in_one_order_while_the_vocoder_computes() -> None:
    seen = set()

    def activate(activation: AntiAliasAct1d, x: Tensor) -> Tensor:
        seen.add(torch.backends.cudnn.deterministic)
        return activated(activation, x)

    vocoder = Vocoder(demo_config.VOCODER).eval()
    vocoder.restore_buffers()
    with torch.inference_mode():
        vocoder(torch.zeros(1, 2, 4, 64), activate)
    assert seen == {True}
    assert not torch.backends.cudnn.deterministic


@pytest.mark.gpu
def test_a_gpu_makes_the_same_samples() -> None:
    """At full size, where cuDNN would otherwise sum one convolution in any order."""
    torch.manual_seed(1)
    with torch.device("cuda"), torch.inference_mode():
        vocoder = Vocoder(published_listing()["metadata"]["config"]["vocoder"])
        vocoder.restore_buffers()
        vocoder = vocoder.cuda().eval()
        mel = torch.randn(1, 2, 501, 64)
        first = vocoder(mel)
        assert all(torch.equal(vocoder(mel), first) for _ in range(4))
