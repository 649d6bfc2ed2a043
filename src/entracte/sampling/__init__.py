"""Schedules, noise, guidance and the Euler step: small pure functions."""
