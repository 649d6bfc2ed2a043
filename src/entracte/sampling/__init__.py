"""Samplers and what they work with: the denoiser, guidance, schedules, noise and tokens."""
