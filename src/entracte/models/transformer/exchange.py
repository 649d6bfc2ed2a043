"""What attention to the video's tokens needs of other devices, where these are spread over several.

A device that has some of the tokens attends for some of the heads, and is given these of all
tokens. Audio and text tokens are on every device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Protocol

from torch import Tensor

VECTOR = 16  # bytes that a thread of a GPU writes at once

# What was asked for, once it is here.
Awaited = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class HeadRoom:
    """Memory for the heads of this device's tokens, by the device that attends for them.

    parts: of each device, [rows, tokens, heads / devices, head_dim], all of the same strides.
    memory: that they are in, one after another. addresses: of the parts, [devices] int64, where
    they are not in one memory.
    """

    parts: Sequence[Tensor]
    memory: Tensor | None
    addresses: Tensor | None = None

    def aligned(self, count: int) -> int:
        """A power of two of bytes, at most 16, that runs of so many numbers in any part begin at a
        multiple of: how much a kernel may write at once.
        """
        part = self.parts[0]
        steps = count, *part.stride()[:-1]
        return gcd(VECTOR, part.data_ptr(), *(step * part.itemsize for step in steps))

    def fill(self, heads: Tensor) -> None:
        """Copy heads [rows, tokens, heads, head_dim]."""
        split = heads.unflatten(2, (len(self.parts), -1))
        if self.memory is not None:
            self.memory.permute(2, 1, 0, 3, 4).copy_(split)
            return
        for part, mine in zip(self.parts, split.unbind(2), strict=True):
            part.copy_(mine)


class Exchange(Protocol):
    """All tensors are [rows, tokens, heads, head_dim] unless another shape is told.

    captured: whether it can be a part of CUDA graphs. what: names a tensor of a block; those in
        audio's lane begin with "audio".
    """

    captured: bool

    def room(
        self, what: str, rows: int, tokens: int, heads: int, like: Tensor, /
    ) -> HeadRoom | None:
        """Where to write heads of this device's tokens; None: anywhere."""

    def tell(self, what: str, heads: Tensor, room: HeadRoom | None, /) -> Awaited:
        """Heads of this device's video tokens, which are in the room if there is one, for this
        device's heads of all tokens.
        """

    def collect(self, attended: Tensor) -> Awaited:
        """The device's heads of all video tokens for all heads of its own tokens,
        [rows, tokens, devices, heads / devices, head_dim].
        """

    def own(self, heads: Tensor) -> Tensor:
        """The device's heads of tokens that all devices have."""

    def whole(self, x: Tensor) -> Tensor:
        """Hidden states of the device's video tokens, [rows, tokens, width], for those of all."""

    def part(self, what: str, tokens: Tensor, /) -> Tensor:
        """Of tokens that all devices have, [rows, tokens, width], those that this one computes.

        A block asks for it first, in each lane.
        """

    def join(self, what: str, heads: Tensor, tokens: int, /) -> Awaited:
        """The heads of a `part` of so many tokens for those of all of them."""

    def gather(self, attended: Tensor) -> Awaited:
        """The device's heads of tokens that all devices have for all heads,
        [rows, tokens, devices, heads / devices, head_dim].
        """


class OneDevice:
    """The `Exchange` where all tokens are here."""

    captured = True

    def room(self, *_: object) -> None:
        return None

    def tell(self, _what: str, heads: Tensor, _room: HeadRoom | None) -> Awaited:
        return lambda: heads

    def collect(self, attended: Tensor) -> Awaited:
        return lambda: attended.unsqueeze(2)

    def own(self, heads: Tensor) -> Tensor:
        return heads

    def whole(self, x: Tensor) -> Tensor:
        return x

    def part(self, _what: str, tokens: Tensor) -> Tensor:
        return tokens

    def join(self, _what: str, heads: Tensor, _tokens: int) -> Awaited:
        return lambda: heads

    def gather(self, attended: Tensor) -> Awaited:
        return lambda: attended.unsqueeze(2)


ONE_DEVICE = OneDevice()
