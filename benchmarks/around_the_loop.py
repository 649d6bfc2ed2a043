"""What comes before and after the transformer, on a GPU: text, connectors, picture and sound.

Random weights in the published sizes; a prompt of 200 tokens, 121 frames of 768x512.

    python benchmarks/around_the_loop.py
"""

import statistics
import time
from collections.abc import Callable
from itertools import chain, islice

import torch
from torch import Tensor
from transformers import Gemma3Config

from entracte.checkpoints.published_sizes import published_listing
from entracte.models.audio_vae import AudioVae
from entracte.models.component import Component
from entracte.models.connectors import Connectors
from entracte.models.decoders import PLAIN, Decoders
from entracte.models.gemma import TextEncoder
from entracte.models.kernels import execution
from entracte.models.tiling import Tiling
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder
from entracte.pipeline.latents import OwnStream, decode_audio, decode_video, to_host
from entracte.synthetic.random_sizes import FULL_GEMMA

CUDA = torch.device("cuda")
BFLOAT16 = torch.bfloat16
TOKENS, FRAMES, HEIGHT, WIDTH, AUDIO = 200, 16, 16, 24, 126  # latents


def made(build: Callable[[], Component], dtype: torch.dtype = BFLOAT16) -> Component:
    """A component with random weights."""
    with torch.device("meta"):
        module = build()
    module = module.to(dtype).to_empty(device=CUDA)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.ndim > 1:
            tensor.data.normal_(0, tensor[0].numel() ** -0.5)
        else:
            tensor.data.fill_(1.0 if name.endswith(("std", "weight")) else 0.0)
    module.restore_buffers()
    return module.to(CUDA).eval()


def milliseconds(compute: Callable[[], object], repeats: int = 5) -> float:
    """Median, by the host's clock, until the device is done."""
    found = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        compute()
        torch.cuda.synchronize()
        found.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(found[1:])


def show(what: str, compute: Callable[[], object]) -> None:
    print(f"{what:60} {milliseconds(compute):8.1f} ms", flush=True)


def text() -> None:
    encoder = made(lambda: TextEncoder(Gemma3Config(text_config=FULL_GEMMA)))
    assert isinstance(encoder, TextEncoder)
    tokens = torch.arange(TOKENS, device=CUDA) + 100
    show("text, padded to 1,024 tokens", lambda: encoder.padded(tokens))
    show("text, alone", lambda: encoder.alone(tokens))
    calls = execution(CUDA, "auto", transformer=0).calls
    encoder(tokens, calls)  # the first layer is captured in the second prompt
    show("text, from graphs", lambda: encoder(tokens, calls))
    states = encoder.alone(tokens)
    print("the same bits from graphs:", torch.equal(encoder(tokens, calls), states))
    width = states.shape[1] * states.shape[2]
    config = published_listing()["metadata"]["config"]["transformer"]
    connectors = made(lambda: Connectors(config, width))
    show("connectors", lambda: connectors(states))


def decoding() -> None:
    config = published_listing()["metadata"]["config"]
    picture = made(lambda: VideoVae(config["vae"]))
    mel = made(lambda: AudioVae(config["audio_vae"]))
    with CUDA:  # its filters are computed as it is built
        vocoder = Vocoder(config["vocoder"])
    vocoder.restore_buffers()
    vocoder = vocoder.to(CUDA).eval()
    assert isinstance(picture, VideoVae)
    assert isinstance(mel, AudioVae)
    channels = config["vae"]["latent_channels"]
    latents = torch.randn(1, channels, FRAMES, HEIGHT, WIDTH, device=CUDA, dtype=BFLOAT16)
    sound = torch.randn(1, 8, AUDIO, 16, device=CUDA, dtype=BFLOAT16)
    tile = latents[:, :, :10]

    def everything(by: Decoders, beside: bool) -> list[Tensor]:
        frames = decode_video(picture, latents, Tiling(), decoders=by)
        own = OwnStream(CUDA)
        first = list(islice(frames, int(beside)))
        with own.current():
            decode_audio(mel, vocoder, sound, by)
        return list(to_host(chain(first, frames), ahead=1))

    fused = execution(CUDA, "fused", transformer=0).decoders
    for name, by in (("plain", PLAIN), ("fused", fused)):
        show(f"a tile of 10 latent frames, {name}", lambda by=by: by.video(picture.decoder, tile))
        show(f"sound, {name}", lambda by=by: decode_audio(mel, vocoder, sound, by))
        show(f"all, one after the other, {name}", lambda by=by: everything(by, beside=False))
        show(f"all, sound beside the picture, {name}", lambda by=by: everything(by, beside=True))


def main() -> None:
    print(torch.cuda.get_device_name(), torch.__version__)
    with torch.inference_mode():
        decoding()
        text()


if __name__ == "__main__":
    main()
