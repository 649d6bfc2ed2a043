"""Measurements of this engine beside others, on the same weights and requests."""
