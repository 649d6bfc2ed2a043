"""The vocoder: mel spectrogram to waveform, perhaps with bandwidth extension after it.

The models are diffusers'. With the extension it always runs in float32: bfloat16 would degrade the
spectrum by 40 to 90 per cent.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from entracte.errors import CheckpointError

from .component import Component

if TYPE_CHECKING:
    from diffusers.pipelines.ltx2.vocoder import AntiAliasAct1d

# What the published file calls a part of a key, and what diffusers does.
RENAMES = (
    (".conv_pre.", ".conv_in."),
    (".conv_post.", ".conv_out."),
    (".act_post.", ".act_out."),
    (".ups.", ".upsamplers."),
    (".resblocks.", ".resnets."),
    (".downsample.lowpass.", ".downsample."),
)

# For configs that leave them out, as the published ones do.
RESBLOCK_KERNELS = [3, 7, 11]
RESBLOCK_DILATIONS = [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
PLAIN_KERNELS, PLAIN_FACTORS, PLAIN_RATE = [16, 15, 8, 4, 4], [6, 5, 2, 2, 2], 24_000

# Applies an activation to [rows, channels, samples].
Activate = Callable[["AntiAliasAct1d", Tensor], Tensor]


def activated(activation: "AntiAliasAct1d", x: Tensor) -> Tensor:
    """As diffusers computes it."""
    out: Tensor = activation(x)
    return out


@contextmanager
def same_sums() -> Iterator[None]:
    """Have cuDNN take algorithms that sum in one order, which is not its first choice."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=False,
        benchmark_limit=None,
        deterministic=True,
        allow_tf32=cudnn.allow_tf32,
        fp32_precision=None,
    ):
        yield


class Vocoder(Component):
    """diffusers' model, built from the header's `vocoder` config.

    A flat config is that of HiFi-GAN (arXiv 2010.05646), as LTX-2.0 has it; another has a generator
    of a narrow band and one that extends it.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._extends = extends_bandwidth(config)
        if self._extends:
            extension = config["bwe"]
            self.sample_rate: int = extension["output_sampling_rate"]
            self._resampling = self.sample_rate // extension["input_sampling_rate"]
            self.model = _extending(config["vocoder"], extension)
        else:
            self.sample_rate = config.get("output_sampling_rate", PLAIN_RATE)
            self.model = _plain(config, self.sample_rate)

    @property
    def dtype(self) -> torch.dtype:
        """Of the spectrogram that it takes."""
        found: torch.dtype = next(self.parameters()).dtype
        return found

    def restore_buffers(self) -> None:
        if self._extends:
            from diffusers.pipelines.ltx2.vocoder import UpSample1d

            self.model.resampler = UpSample1d(
                ratio=self._resampling, window_type="hann", persistent=False
            )

    def forward(self, mel: Tensor, activate: Activate = activated) -> Tensor:
        """Log-mel [1, 2, frames, 64] in its dtype to a waveform [1, 2, samples] in -1..1.

        diffusers' forward, in which anti-aliased activations may be computed otherwise.
        """
        with same_sums():
            if self._extends:
                return self._extended(mel, activate)
            waveform: Tensor = self.model(mel)
            return waveform

    def _extended(self, mel: Tensor, activate: Activate) -> Tensor:
        model = self.model
        narrow = _generate(model.vocoder, mel, activate)
        samples = narrow.shape[2]
        narrow = F.pad(narrow, (0, -samples % model.config.hop_length))
        mel, *_ = model.mel_stft(narrow.flatten(0, 1))
        mel = mel.unflatten(0, (-1, narrow.shape[1])).transpose(2, 3)
        wide = _generate(model.bwe_generator, mel, activate) + model.resampler(narrow)
        waveform: Tensor = wide.clamp(-1, 1)[..., : samples * self._resampling]
        return waveform


def _generate(generator: Any, mel: Tensor, activate: Activate) -> Tensor:
    """Log-mel [1, channels, frames, bins] to samples [1, channels, samples]."""
    x: Tensor = generator.conv_in(mel.transpose(2, 3).flatten(1, 2))
    count = generator.resnets_per_upsample
    for level, upsample in enumerate(generator.upsamplers):
        x = upsample(x)
        blocks = generator.resnets[level * count : (level + 1) * count]
        x = torch.stack([_residual(block, x, activate) for block in blocks]).mean(dim=0)
    x = generator.conv_out(activate(generator.act_out, x))
    if generator.final_act_fn == "tanh":
        x = x.tanh()
    elif generator.final_act_fn == "clamp":
        x = x.clamp(-1, 1)
    return x


def _residual(block: Any, x: Tensor, activate: Activate) -> Tensor:
    layers = zip(block.acts1, block.convs1, block.acts2, block.convs2, strict=True)
    for first, widened, second, conv in layers:
        x = x + conv(activate(second, widened(activate(first, x))))
    return x


def file_to_module(key: str) -> str:
    """A published key, without `vocoder.`, as a parameter name of Vocoder."""
    name = f"model.{key}"
    for published, ours in RENAMES:
        name = name.replace(published, ours)
    return name


def module_to_file(name: str) -> str:
    """The inverse of `file_to_module`."""
    for published, ours in RENAMES:
        name = name.replace(ours, published)
    return name.removeprefix("model.")


def extends_bandwidth(config: Mapping[str, Any]) -> bool:
    """Whether a `vocoder` config is that of a vocoder with bandwidth extension."""
    return "bwe" in config and "vocoder" in config


def _extending(base: Mapping[str, Any], extension: Mapping[str, Any]) -> Any:
    from diffusers.pipelines.ltx2.vocoder import LTX2VocoderWithBWE

    for part in (base, extension):
        if part["resblock"] != "AMP1" or part["activation"] != "snakebeta":
            raise CheckpointError("vocoder config is not that of LTX-2.3")
    bandwidth = _generator(extension, extension["num_mels"])
    return LTX2VocoderWithBWE(
        **_generator(base, mel_bins=64),
        # diffusers does not clamp the first generator's waveform; the official code does.
        final_act_fn="tanh" if base["use_tanh_at_final"] else "clamp",
        **{f"bwe_{name}": value for name, value in bandwidth.items()},
        bwe_final_act_fn=None,
        filter_length=extension["n_fft"],
        hop_length=extension["hop_length"],
        window_length=extension["n_fft"],
        num_mel_channels=extension["num_mels"],
        input_sampling_rate=extension["input_sampling_rate"],
        output_sampling_rate=extension["output_sampling_rate"],
    )


def _plain(config: Mapping[str, Any], rate: int) -> Any:
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    if str(config["resblock"]) != "1":
        raise CheckpointError("vocoder config is not that of LTX-2.0")
    channels = 2 if config["stereo"] else 1
    return LTX2Vocoder(
        in_channels=channels * 64,
        hidden_channels=config["upsample_initial_channel"],
        out_channels=channels,
        upsample_kernel_sizes=config.get("upsample_kernel_sizes", PLAIN_KERNELS),
        upsample_factors=config.get("upsample_rates", PLAIN_FACTORS),
        resnet_kernel_sizes=config.get("resblock_kernel_sizes", RESBLOCK_KERNELS),
        resnet_dilations=config.get("resblock_dilation_sizes", RESBLOCK_DILATIONS),
        final_act_fn="tanh" if config.get("use_tanh_at_final", True) else "clamp",
        final_bias=config.get("use_bias_at_final", True),
        output_sampling_rate=rate,
    )


def _generator(config: Mapping[str, Any], mel_bins: int) -> dict[str, Any]:
    channels = 2 if config["stereo"] else 1
    return {
        "in_channels": channels * mel_bins,
        "hidden_channels": config["upsample_initial_channel"],
        "out_channels": channels,
        "upsample_kernel_sizes": config["upsample_kernel_sizes"],
        "upsample_factors": config["upsample_rates"],
        "resnet_kernel_sizes": config.get("resblock_kernel_sizes", RESBLOCK_KERNELS),
        "resnet_dilations": config.get("resblock_dilation_sizes", RESBLOCK_DILATIONS),
        "act_fn": config["activation"],
        "antialias": True,
        "final_bias": config["use_bias_at_final"],
    }
