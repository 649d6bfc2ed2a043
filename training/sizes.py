"""The sizes of the demonstration model, and what they cost: `python -m training.sizes`.

LTX-2.3 in every respect but width and depth. The configs are those of the published file, so what
they leave as it was published is read from the one with random weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Gemma3Config

from entracte.models.audio_vae import AudioVae
from entracte.models.connectors import Connectors
from entracte.models.gemma import TextEncoder
from entracte.models.transformer import (
    Pass,
    StreamInput,
    StreamRotary,
    TokenRun,
    Transformer,
    TransformerConfig,
)
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder
from entracte.sampling.lengths import audio_token_count
from entracte.sampling.tokens import VideoGrid, audio_spans
from entracte.synthetic import demo_config as published

from .media_sizes import AUDIO_VAE, UPSAMPLER, VIDEO_VAE, VOCODER

# What the model is trained for and `make demo` makes: 2 s.
FRAMES = 49
FRAME_RATE = 24.0
HEIGHT, WIDTH = 256, 384

STAGE_1 = VideoGrid.of_pixels(FRAMES, HEIGHT // 2, WIDTH // 2, FRAME_RATE)
STAGE_2 = VideoGrid.of_pixels(FRAMES, HEIGHT, WIDTH, FRAME_RATE)
AUDIO_TOKENS = audio_token_count(FRAMES, FRAME_RATE)

# Both streams must be wider than a token's 128 numbers: a token's noise is told apart from what is
# under it, and whatever of it has no room stays in the result.
TRANSFORMER: dict[str, Any] = published.TRANSFORMER | {
    "num_layers": 5,
    "num_attention_heads": 8,
    "attention_head_dim": 32,
    "cross_attention_dim": 256,
    "audio_num_attention_heads": 10,
    "audio_attention_head_dim": 16,
    "audio_cross_attention_dim": 160,
    "connector_num_attention_heads": 8,
    "connector_attention_head_dim": 32,
    "connector_num_layers": 1,
    "audio_connector_num_attention_heads": 10,
    "audio_connector_attention_head_dim": 16,
    "audio_connector_num_layers": 1,
}

LORA_RANK = 6

# The vocabulary is that of the world's captions and of the default negative prompt, and bytes.
GEMMA: dict[str, Any] = published.GEMMA | {
    "text_config": published.GEMMA["text_config"]
    | {
        "vocab_size": 768,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 1024,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
    }
}

# At most this is shipped: bfloat16, and the transformer's linears in fp8; compressed, which takes
# away a quarter of such numbers.
SHIPPED_BYTES = 25_000_000
COMPRESSED = 0.75
STAGE_1_STEPS = 12
STAGE_2_STEPS = 3

# What one core of the machine of `docs/reference/measurements.md` does in these models: they are so
# narrow that it is a third of what a large product gets.
FLOPS_OF_A_CORE = 25e9


def text_width() -> int:
    """Numbers of a token that the text projections take."""
    text = GEMMA["text_config"]
    width: int = text["hidden_size"] * (text["num_hidden_layers"] + 1)
    return width


@dataclass(frozen=True, slots=True)
class Cost:
    """What one component is: its parameters, and the products of its part in a demonstration."""

    name: str
    parameters: int
    bytes: int
    calls: int
    flops: float


def costs() -> list[Cost]:
    """Of every component, in the order of a request; nothing is allocated."""
    with torch.device("meta"):
        encoder = TextEncoder(Gemma3Config(**GEMMA))
        connectors = Connectors(TRANSFORMER, text_width())
        transformer = Transformer(TransformerConfig.from_header(TRANSFORMER))
        video_vae, audio_vae = VideoVae(VIDEO_VAE), AudioVae(AUDIO_VAE)
        upsampler, vocoder = Upsampler(UPSAMPLER), Vocoder(VOCODER)
        low, high = _latent(STAGE_1), _latent(STAGE_2)
        mel = torch.empty(1, 2, 4 * AUDIO_TOKENS - 3, 64)
        sound = torch.empty(1, 8, AUDIO_TOKENS, 16)
        states = torch.empty(64, 128, GEMMA["text_config"]["num_hidden_layers"] + 1)
    guided = [Pass(), Pass(context=1), Pass(skip_video=frozenset({4})), Pass(isolated=True)]
    lora = sum(
        min(LORA_RANK, each.in_features, each.out_features) * (each.in_features + each.out_features)
        for each in transformer.modules()
        if isinstance(each, nn.Linear)
    )
    return [
        _cost("text encoder", encoder, 2, lambda: _encode(encoder)),
        _cost("connectors", connectors, 2, lambda: connectors(states)),
        _cost("stage 1", transformer, STAGE_1_STEPS, lambda: _step(transformer, STAGE_1, guided)),
        _cost("upsampler", upsampler, 1, lambda: upsampler(low)),
        Cost("distilled LoRA", lora, 2 * lora, 0, 0.0),
        _cost("stage 2", None, STAGE_2_STEPS, lambda: _step(transformer, STAGE_2, [Pass()])),
        _cost("video encoder", video_vae.encoder, 0, lambda: None),
        _cost("video decoder", video_vae.decoder, 1, lambda: video_vae.decoder(high)),
        _cost("audio encoder", audio_vae.model.encoder, 0, lambda: None),
        _cost("audio decoder", audio_vae.model.decoder, 1, lambda: audio_vae.model.decoder(sound)),
        _cost("vocoder", vocoder, 1, lambda: vocoder(mel)),
    ]


def _cost(name: str, module: nn.Module | None, calls: int, run: Callable[[], object]) -> Cost:
    tensors = [] if module is None else list(module.state_dict().values())
    fp8 = 0
    if isinstance(module, Transformer):
        fp8 = sum(each.weight.numel() for each in module.modules() if isinstance(each, nn.Linear))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        if calls:
            run()
    return Cost(
        name,
        sum(tensor.numel() for tensor in tensors),
        sum(2 * tensor.numel() for tensor in tensors) - fp8,
        calls,
        calls * float(counter.get_total_flops()),
    )


def _encode(encoder: TextEncoder) -> Tensor:
    """All 1,024 rows, as a CPU computes them; the mask costs nothing."""
    x = torch.empty(1, 1024, GEMMA["text_config"]["hidden_size"], device="meta")
    half = torch.empty(1, 1024, GEMMA["text_config"]["head_dim"], device="meta")
    for layer in encoder.model.layers:
        x = layer(x, attention_mask=None, position_embeddings=(half, half))
    return x


def _latent(grid: VideoGrid) -> Tensor:
    return torch.empty(1, 128, grid.frames, grid.height, grid.width)


def _step(transformer: Transformer, grid: VideoGrid, passes: Sequence[Pass]) -> object:
    rotary = transformer.rotary(
        grid.spans().mean(-1),
        audio_spans(AUDIO_TOKENS).mean(-1),
        torch.device("meta"),
        torch.float32,
    )
    config = transformer.config

    def stream(tokens: int, width: int, angles: StreamRotary) -> StreamInput:
        with torch.device("meta"):
            sigma, contexts = torch.empty(1), len({each.context for each in passes})
            latent, text = torch.empty(1, tokens, 128), torch.empty(contexts, 1024, width)
        return StreamInput(latent, sigma, [TokenRun(0, tokens, 0)], sigma, text, angles)

    return transformer(
        stream(grid.tokens, config.video.context_dim, rotary[0]),
        stream(AUDIO_TOKENS, config.audio.context_dim, rotary[1]),
        passes,
    )


def main() -> None:
    """Print the table."""
    found = costs()
    print(f"{'':16}{'parameters':>12}{'MB':>7}{'calls':>7}{'GFLOP':>8}{'s, two cores':>14}")
    for each in found:
        seconds = each.flops / (2 * FLOPS_OF_A_CORE)
        print(
            f"{each.name:16}{each.parameters:>12,}{each.bytes / 1e6:>7.2f}{each.calls:>7}"
            f"{each.flops / 1e9:>8.1f}{seconds:>14.1f}"
        )
    flops, stored = sum(each.flops for each in found), sum(each.bytes for each in found)
    print(
        f"{'all':16}{sum(each.parameters for each in found):>12,}{stored / 1e6:>7.2f}{'':7}"
        f"{flops / 1e9:>8.1f}{flops / (2 * FLOPS_OF_A_CORE):>14.1f}"
    )
    print(
        f"{WIDTH}x{HEIGHT}, {FRAMES} frames: {STAGE_1.tokens} video tokens in stage 1 and "
        f"{STAGE_2.tokens} in stage 2, {AUDIO_TOKENS} audio tokens; compressed, "
        f"{COMPRESSED * stored / 1e6:.0f} MB of at most {SHIPPED_BYTES / 1e6:.0f}"
    )


if __name__ == "__main__":
    main()
