"""Whether ranks can have the bits of one GPU: products by rows, attention by heads and by queries.

The fused kernels need no probe: what they compute of a token does not depend on the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from entracte.models.transformer import TransformerConfig, attend
from entracte.models.transformer.config import StreamConfig

from .sequence import shares


@dataclass(frozen=True, slots=True)
class SharedShape:
    """What ranks share out. rows: passes in a batch. tokens, audio, text: of a pass. ranks: of a
    row.
    """

    rows: int
    tokens: int
    audio: int
    text: int
    ranks: int


class BitsProbe:
    """Computes with random numbers, on one device. It takes as much memory as a block."""

    def __init__(
        self,
        config: TransformerConfig,
        shape: SharedShape,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._config = config
        self._shape = shape
        self._generator = torch.Generator(device).manual_seed(0)
        self._options = {"device": device, "dtype": dtype}

    def differing(self) -> list[str]:
        """What has other bits in parts than as a whole, in words; nothing if all has the same."""
        return [*self._products(), *self._attentions()]

    def _products(self) -> Iterator[str]:
        video, sound = self._config.video.width, self._config.audio.width
        widths = [
            (self._config.video.in_channels, video),
            (video, video),
            (video, 4 * video),
            (4 * video, video),
            (video, sound),
            (sound, video),
        ]
        for inner, outer in widths:
            weight, bias = self._random(outer, inner) * 0.02, self._random(outer)
            x = self._random(self._shape.rows, self._shape.tokens, inner)
            whole = F.linear(x, weight, bias)
            if not all(
                torch.equal(F.linear(x[:, part].contiguous(), weight, bias), whole[:, part])
                for part in self._parts()
            ):
                yield f"products of {inner} x {outer}"

    def _attentions(self) -> Iterator[str]:
        video, sound = self._config.video, self._config.audio
        shape = self._shape
        for name, stream, asking in (
            ("attention among the video", video, shape.tokens),
            ("attention of the sound to the video", sound, shape.audio),
        ):
            q, k, v = self._heads(stream, asking, shape.tokens)
            whole = attend(q, k, v)
            count = stream.heads // shape.ranks
            for first in range(0, stream.heads, count):
                own = slice(first, first + count)
                part = attend(*(_tokens_first(each[:, :, own]) for each in (q, k, v)))
                if not torch.equal(part, whole[:, :, own]):
                    yield f"{name}, by heads"
                    break
        for name, stream, told in (
            ("attention of the video to the text", video, shape.text),
            ("attention of the video to the sound", sound, shape.audio),
        ):
            q, k, v = self._heads(stream, shape.tokens, told)
            whole = attend(q, k, v)
            if not all(
                torch.equal(attend(q[:, part].contiguous(), k, v), whole[:, part])
                for part in self._parts()
            ):
                yield f"{name}, by tokens"

    def _parts(self) -> Iterator[slice]:
        start = 0
        for count in shares(self._shape.tokens, self._shape.ranks):
            yield slice(start, start + count)
            start += count

    def _heads(self, stream: StreamConfig, asking: int, told: int) -> tuple[Tensor, Tensor, Tensor]:
        rows, heads, head_dim = self._shape.rows, stream.heads, stream.head_dim
        q, k, v = (self._random(rows, tokens, heads, head_dim) for tokens in (asking, told, told))
        return q, k, v

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, **self._options)  # type: ignore[call-overload,no-any-return]


def _tokens_first(x: Tensor) -> Tensor:
    """The same numbers, as they lie in the memory of a row."""
    return x.transpose(0, 1).contiguous().transpose(0, 1)
