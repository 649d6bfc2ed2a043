"""Convolutions that are fast in bfloat16 on every CPU.

A CPU without bfloat16 instructions convolves bfloat16 about ten times slower than float32, so there
they are computed in float32.
"""

from torch import Tensor, nn

from .transformer.linear import quicker_in_float32


class Conv2d(nn.Conv2d):
    """Accumulates in float32 and rounds once, however it is computed."""

    def forward(self, x: Tensor) -> Tensor:
        if not quicker_in_float32(x):
            return super().forward(x)
        out: Tensor = self._conv_forward(x.float(), *_widened(self))
        return out.to(x.dtype)


class Conv3d(nn.Conv3d):
    """Accumulates in float32 and rounds once, however it is computed."""

    def forward(self, x: Tensor) -> Tensor:
        if not quicker_in_float32(x):
            return super().forward(x)
        out: Tensor = self._conv_forward(x.float(), *_widened(self))
        return out.to(x.dtype)


def use_quick_convolutions(module: nn.Module) -> None:
    """Replace torch's convolutions in a library's module with those above.

    Names and parameters stay as they are.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d:
                setattr(parent, name, _like(child, Conv2d))
            elif type(child) is nn.Conv3d:
                setattr(parent, name, _like(child, Conv3d))


def _like(conv: nn.Conv2d | nn.Conv3d, kind: type[Conv2d] | type[Conv3d]) -> Conv2d | Conv3d:
    made = kind(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
        device="meta",
    )
    made.weight, made.bias = conv.weight, conv.bias
    return made


def _widened(conv: nn.Conv2d | nn.Conv3d) -> tuple[Tensor, Tensor | None]:
    return conv.weight.float(), None if conv.bias is None else conv.bias.float()
