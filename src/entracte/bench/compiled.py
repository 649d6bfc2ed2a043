"""diffusers' transformer with compiled blocks."""

import time
from collections.abc import Callable
from typing import Any

import torch


def compile_blocks(transformer: Any) -> None:
    """Compile the repeated blocks at their first calls, for every shape anew.

    Not as one graph each: the pass that skips self-attention branches on a tensor. What cannot be
    compiled raises a RuntimeError at its first call.
    """
    transformer.compile_repeated_blocks(dynamic=False)


def first_call(step: Callable[[], Any], device: torch.device) -> float:
    """The seconds of a first call, with whatever is compiled in it."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def told(error: RuntimeError) -> str:
    """An error of compilation in one line."""
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0] if words else 'without a message'}"[:300]
