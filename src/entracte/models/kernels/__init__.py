"""Fused kernels for GPUs, with the roundings of the plain expressions."""
