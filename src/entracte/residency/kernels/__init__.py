"""Merging on a GPU."""
