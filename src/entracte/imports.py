"""Importing the libraries that take seconds."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without collecting garbage.

    torch, transformers and diffusers make a million objects, none of them garbage; looking through
    them again and again takes a quarter of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
