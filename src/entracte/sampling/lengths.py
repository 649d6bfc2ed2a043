"""How long a video is, in latent frames and audio tokens. Nothing here needs torch."""

# Pixel frames of a latent frame; the first one has a single pixel frame.
TIME = 8

AUDIO_TOKENS_PER_SECOND = 25


def audio_token_count(frames: int, frame_rate: float) -> int:
    """The number of audio tokens for a number of pixel frames."""
    return round(frames / frame_rate * AUDIO_TOKENS_PER_SECOND)
