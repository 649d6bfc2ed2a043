"""The arithmetic of a phase's loop: of its matrix products and attention, as a closed form."""

from math import floor

from entracte.models.connectors import CONTEXT_TOKENS
from entracte.models.transformer import TransformerConfig
from entracte.models.transformer.config import StreamConfig
from entracte.models.transformer.modulation import FREQUENCIES

from .workload import PhaseLoad


def loop_flops(config: TransformerConfig, phase: PhaseLoad) -> float:
    """Floating-point operations of all sweeps of a phase."""
    video, audio = config.video, config.audio
    n, m = phase.video_tokens, phase.audio_tokens
    blocks = config.layers
    # A pass through a block: self-attention, text attention and feed-forward of both streams.
    in_block = sum(
        _values_and_output(stream, tokens)
        + _queries_keys_and_attention(stream, tokens)
        + _text_attention(stream, tokens)
        + _feed_forward(stream, tokens)
        for stream, tokens in ((video, n), (audio, m))
    )
    sweep = phase.passes * blocks * in_block
    # A pass that skips self-attention in some blocks makes only values there.
    sweep -= phase.skips[0] * _queries_keys_and_attention(video, n)
    sweep -= phase.skips[1] * _queries_keys_and_attention(audio, m)
    # Audio-video attention, which an isolated pass does without.
    sweep += (phase.passes - phase.isolated) * blocks * _audio_video_attention(video, audio, n, m)
    # Keys and values of the text: for every context, once for all the passes that attend to it.
    sweep += phase.contexts * blocks * (_text(video) + _text(audio))
    # Outside the blocks: latents in, once for all passes; velocities out; timesteps.
    sweep += _linear(n, video.in_channels, video.width) + _linear(m, audio.in_channels, audio.width)
    sweep += phase.evaluations * _linear(n, video.width, video.out_channels)
    sweep += phase.evaluations * _linear(m, audio.width, audio.out_channels)
    sweep += _timesteps(config, phase.timesteps)
    return phase.sweeps * sweep


def groups(phase: PhaseLoad) -> float:
    """In how many batches the passes go through a block, on average over the blocks."""
    starting = floor(phase.passes)
    full, rest = divmod(starting, phase.rows_at_once)
    # A pass that leaves its twin joins the last batch, or is one of its own if that is full.
    return full + 1 if rest else full + (phase.passes - starting)


def _linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs


def _attention(queries: int, keys: int, width: int) -> int:
    """Scores, and sums of values: two products for every head."""
    return 4 * queries * keys * width


def _values_and_output(s: StreamConfig, tokens: int) -> int:
    """The part of self-attention that is never skipped; a gate for every head is part of it."""
    return 2 * _linear(tokens, s.width, s.width) + _linear(tokens, s.width, s.heads)


def _queries_keys_and_attention(s: StreamConfig, tokens: int) -> int:
    return 2 * _linear(tokens, s.width, s.width) + _attention(tokens, tokens, s.width)


def _text_attention(s: StreamConfig, tokens: int) -> int:
    """Queries, output, gates, and attention; keys and values are made for all passes at once."""
    return (
        2 * _linear(tokens, s.width, s.width)
        + _linear(tokens, s.width, s.heads)
        + _attention(tokens, CONTEXT_TOKENS, s.width)
    )


def _text(s: StreamConfig) -> int:
    """Keys and values of one context."""
    return 2 * _linear(CONTEXT_TOKENS, s.context_dim, s.width)


def _feed_forward(s: StreamConfig, tokens: int) -> int:
    """Four times as wide inside."""
    return 2 * _linear(tokens, s.width, 4 * s.width)


def _audio_video_attention(video: StreamConfig, audio: StreamConfig, n: int, m: int) -> int:
    """Both directions, at the audio stream's width and heads."""
    width, heads = audio.width, audio.heads
    return (
        # Video asks audio: queries and gates, keys and values, attention, output.
        _linear(n, video.width, width + heads)
        + 2 * _linear(m, audio.width, width)
        + _attention(n, m, width)
        + _linear(n, width, video.width)
        # Audio asks video.
        + _linear(m, audio.width, width + heads)
        + 2 * _linear(n, video.width, width)
        + _attention(m, n, width)
        + _linear(m, width, audio.width)
    )


def _timesteps(config: TransformerConfig, distinct: int) -> int:
    """Embeddings of timesteps, and the modulation vectors that come of them.

    distinct: timesteps of the video's tokens; the audio's all have one.
    """
    video, audio = config.video.width, config.audio.width

    def vectors(timesteps: int, width: int, rows: int) -> int:
        return (
            _linear(timesteps, 2 * FREQUENCIES, width)
            + _linear(timesteps, width, width)
            + _linear(timesteps, width, rows * width)
        )

    return (
        # Nine for a block's own layers, and four for audio-video attention.
        vectors(distinct, video, 9)
        + vectors(distinct, video, 4)
        + vectors(1, audio, 9)
        + vectors(1, audio, 4)
        # Two for the text, and the gate of audio-video attention.
        + vectors(1, video, 2)
        + vectors(1, video, 1)
        + vectors(1, audio, 2)
        + vectors(1, audio, 1)
    )
