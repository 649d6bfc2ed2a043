"""The Euler step of a rectified-flow sampler, in the official rounding."""

from torch import Tensor


def denoised(latent: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """x0 = x - v * level, computed in float32 and rounded to the latent's dtype.

    level: each token's noise level, mask * sigma; broadcasts over [1, tokens, channels].
    """
    return (latent.float() - velocity.float() * level).to(latent.dtype)


def keep_clean(x0: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
    """x0 * mask + clean * (1 - mask), in float32, rounded to x0's dtype. mask: [1, tokens, 1]."""
    return (x0.float() * mask + clean.float() * (1 - mask)).to(x0.dtype)


def euler_step(latent: Tensor, x0: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """Move a latent from noise level sigma to next_sigma along (x - x0) / sigma.

    The slope is rounded to the latent's dtype, then the result. sigmas: float32, [] or [1].
    Source: arXiv 2206.00364, algorithm 1 without its correction.
    """
    slope = ((latent.float() - x0.float()) / sigma).to(latent.dtype)
    return (latent.float() + slope.float() * (next_sigma - sigma)).to(latent.dtype)
