"""Compares this engine with others, on the same weights and requests."""
