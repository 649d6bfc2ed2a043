"""Webhooks: calls to others when a video has ended."""
