"""The memory of a phase's loop beside weights: what is in use at once at the most, in closed form.

It is the device's way that is counted: a CPU without matrix instructions also makes float32 copies
of what it multiplies (`models/transformer/linear.py`). What kernels take for themselves, such as
the 32 MiB of cuBLAS on recent GPUs, is not counted.
"""

from dataclasses import dataclass

from entracte.models.connectors import CONTEXT_TOKENS
from entracte.models.transformer import TransformerConfig
from entracte.models.transformer.config import StreamConfig

from .workload import PhaseLoad

FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class StreamBytes:
    """Bytes of one stream of a phase, for one row of the batch.

    latent: tokens before the transformer. hidden: within it. velocity: after it.
    cross: at the width of audio-video attention. sums: what attention keeps of every softmax.
    text: one context as it is given. keys: of one context; values take as much.
    """

    latent: int
    hidden: int
    velocity: int
    cross: int
    sums: int
    cross_sums: int
    text: int
    keys: int

    @classmethod
    def of(cls, s: StreamConfig, cross: StreamConfig, tokens: int, itemsize: int) -> "StreamBytes":
        return cls(
            latent=tokens * s.in_channels * itemsize,
            hidden=tokens * s.width * itemsize,
            velocity=tokens * s.out_channels * itemsize,
            cross=tokens * cross.width * itemsize,
            sums=tokens * s.heads * FLOAT32,
            cross_sums=tokens * cross.heads * FLOAT32,
            text=CONTEXT_TOKENS * s.context_dim * itemsize,
            keys=CONTEXT_TOKENS * s.width * itemsize,
        )


def context_bytes(config: TransformerConfig, itemsize: int) -> int:
    """Of one prompt's context, for both streams."""
    widths = config.video.context_dim + config.audio.context_dim
    return CONTEXT_TOKENS * widths * itemsize


def rotary_bytes(config: TransformerConfig, phase: PhaseLoad, itemsize: int) -> int:
    """Of a phase's rotary tables: cosines and sines of half the width, for both attentions."""
    video, audio = config.video.width, config.audio.width
    return (phase.video_tokens * (video + audio) + phase.audio_tokens * 2 * audio) * itemsize


def loop_bytes(config: TransformerConfig, phase: PhaseLoad, itemsize: int) -> int:
    """What a phase's loop takes beside its rotary tables and the contexts that it is given."""
    video = StreamBytes.of(config.video, config.audio, phase.video_tokens, itemsize)
    audio = StreamBytes.of(config.audio, config.audio, phase.audio_tokens, itemsize)
    latents = video.latent + audio.latent
    # The tokens that the loop starts from, what they are drawn to, and the loop's own.
    held = 3 * latents
    # Every token's share of the noise.
    held += phase.video_tokens * FLOAT32 + phase.audio_tokens * FLOAT32
    # The contexts in one tensor.
    held += phase.contexts * context_bytes(config, itemsize)
    forward = _forward(config, phase, video, audio, itemsize)
    # The latents of several passes are made contiguous, which is a copy.
    forward += latents if phase.evaluations > 1 else 0
    velocities = phase.evaluations * (video.velocity + audio.velocity)
    estimate = velocities + max(_estimate(stream, phase, itemsize) for stream in (video, audio))
    # The clean estimates of both streams, while the latents move on.
    step = latents + max(_euler_step(stream, itemsize) for stream in (video, audio))
    return held + max(forward, estimate, step)


def _forward(
    config: TransformerConfig,
    phase: PhaseLoad,
    video: StreamBytes,
    audio: StreamBytes,
    itemsize: int,
) -> int:
    """The transformer: the hidden states of all passes, and the hungriest moment of a block."""
    hidden = phase.evaluations * (video.hidden + audio.hidden)
    # Keys and values of every context, in this block.
    text = phase.contexts * 2 * (video.keys + audio.keys)
    # While they are made: the text, its keys before their norm, and after it.
    making = phase.contexts * max(
        video.text + 2 * video.keys, 2 * video.keys + audio.text + 2 * audio.keys
    )
    rows = min(phase.rows_at_once, phase.evaluations)
    # Isolated passes come first, so the other batches have none.
    joint = min(rows, phase.evaluations - phase.isolated)
    # Rows with different contexts have their keys and values copied into one tensor.
    picked = rows if rows > 1 and phase.contexts > 1 else 0
    moments = [text + joint * _audio_video_attention(video, audio)]
    for s in (video, audio):
        moments += [
            # Self-attention: its input, values, queries, keys, result.
            text + rows * (5 * s.hidden + s.sums),
            # Text attention: its input, queries, result, and the picked keys and values.
            text + rows * (3 * s.hidden + s.sums) + picked * 2 * s.keys,
            # Feed-forward: its input, four times as much inside, its result.
            text + rows * 6 * s.hidden,
        ]
    return hidden + _modulation(config, phase, itemsize) + max(making, *moments)


def _audio_video_attention(video: StreamBytes, audio: StreamBytes) -> int:
    """For one row. Both streams' two inputs are there all the time."""
    inputs = 2 * (video.hidden + audio.hidden)
    return inputs + max(
        # Video has asked: queries, keys, values, result.
        2 * video.cross + 2 * audio.cross + video.cross_sums,
        # The result is projected.
        video.cross + video.hidden,
        # Audio asks, the other result still there: keys, values; queries, result.
        3 * video.cross + 2 * audio.cross + audio.cross_sums,
    )


def _modulation(config: TransformerConfig, phase: PhaseLoad, itemsize: int) -> int:
    """Vectors that shift, scale and gate."""
    video, audio = config.video.width, config.audio.width
    # For every distinct timestep nine, nine more in a block, four for audio-video attention, and
    # the embedding; for the whole stream the text's two and a gate.
    return ((23 * phase.timesteps + 3) * video + (23 + 3) * audio) * itemsize


def _estimate(s: StreamBytes, phase: PhaseLoad, itemsize: int) -> int:
    """One stream's predictions of all passes in float32, and their combination."""
    wide = s.latent * FLOAT32 // itemsize
    if phase.images:  # three products with the mask, beside the estimate
        return (phase.evaluations + 3) * wide + s.latent
    # Two terms and their sum, from the second term on beside the sum so far.
    return (phase.evaluations + (3 if phase.evaluations > 2 else 2)) * wide


def _euler_step(s: StreamBytes, itemsize: int) -> int:
    """The latents, the slope and its product with the step in float32; the slope as rounded."""
    return 3 * s.latent * FLOAT32 // itemsize + s.latent
