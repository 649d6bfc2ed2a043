"""Webhooks: calls to other services when a video finishes."""
