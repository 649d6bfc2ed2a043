"""Proof that weights merged in place were restored: digests of the base, taken and compared."""

from collections.abc import Sequence

import torch
from torch import Tensor

from entracte.errors import DeviceFault
from entracte.residency.backends.protocol import Backend

from .buffer_key import BlockWeights, BufferKey
from .plan import Plan
from .pool import WeightPool


class BaseChecksum:
    """Remembers the digest of every unit's base when it is first used, and checks it after."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._digests: dict[BlockWeights, Tensor] = {}

    def check(
        self, pool: WeightPool, uses: Sequence[tuple[BlockWeights, BufferKey | None]], plan: Plan
    ) -> None:
        """Check all plain weights that a phase will use in place; the host waits for the answer.

        Raises DeviceFault where they are not what they were.
        """
        if plan.policy.mode != "original":
            return
        same = []
        for content, key in uses:
            if key is None or content.weights is None or content.weights.adapters:
                continue
            buffer = pool[key]
            buffer.acquire(self._backend.compute)
            self._backend.checks.lend(buffer.memory)
            with self._backend.computing():
                digest = _digest(buffer.memory)
            self._backend.checks.take_back(buffer.memory)
            buffer.release(self._backend.compute)
            same.append((digest == self._digests.setdefault(content, digest)).all())
        if same and not bool(torch.stack(same).all()):
            raise DeviceFault(f"the base weights of {plan.component} were not restored")


def _digest(memory: Tensor) -> Tensor:
    """Two sums of words, modulo 2^64: of all, and of every other one."""
    words = memory.view(torch.int64)
    return torch.stack([words.sum(), words[::2].sum()])
