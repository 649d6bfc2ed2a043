"""Synthetic models for demonstrations, tests and benchmarks."""
