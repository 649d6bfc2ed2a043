"""What backends have in common that run on real devices: they check none of the rules."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor


class Unchecked:
    """The part of a backend that exists for checking, doing nothing; see `Backend`."""

    def lend(self, memory: Tensor) -> None:
        pass

    def take_back(self, memory: Tensor) -> None:
        pass

    def in_step(self) -> AbstractContextManager[None]:
        return nullcontext()

    def host_writes(self, memory: Tensor) -> None:
        pass
