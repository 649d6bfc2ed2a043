"""How long a video is, in latent frames and audio tokens. Nothing here needs torch."""

# Pixel frames of a latent frame; the first one has a single pixel frame.
TIME = 8

AUDIO_TOKENS_PER_SECOND = 25


def frame_count(seconds: float, frame_rate: float) -> int:
    """The number of pixel frames, 8k + 1, that last about so long."""
    return max(1, round(seconds * frame_rate / TIME)) * TIME + 1


def audio_token_count(frames: int, frame_rate: float) -> int:
    """The number of audio tokens for a number of pixel frames."""
    return round(frames / frame_rate * AUDIO_TOKENS_PER_SECOND)
