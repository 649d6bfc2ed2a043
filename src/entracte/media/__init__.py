"""Images in, video and sound out."""
