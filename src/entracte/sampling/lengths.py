"""How long a video is, in latent frames and audio tokens. Nothing here needs torch."""

# Pixel frames of a latent frame; the first one has a single pixel frame.
TIME = 8

AUDIO_TOKENS_PER_SECOND = 25


def audio_token_count(frames: int, frame_rate: float) -> int:
    """How many audio tokens accompany a video of so many pixel frames."""
    return round(frames / frame_rate * AUDIO_TOKENS_PER_SECOND)
