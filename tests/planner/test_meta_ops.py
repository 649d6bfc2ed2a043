"""What is said of operators on meta tensors is what torch finds out."""

from typing import Any

import pytest
import torch
from torch import Tensor

from entracte.planner.meta_ops import META, QUICK, aten


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


X, ROW, COLUMN = empty(2, 5, 8), empty(8), empty(2, 5, 1)
WIDE, ACROSS = empty(2, 5, 8, dtype=torch.float32), empty(2, 8, 5).transpose(1, 2)
SLICE = empty(2, 9, 8)[:, 2:7]
ON_META = {"dtype": torch.float32, "device": META}

COVERED: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    *((aten.add.Tensor, (X, other), {}) for other in (X, ROW, COLUMN, 2, 0.5, SLICE)),
    *((aten.mul.Tensor, (other, X), {}) for other in (ROW, COLUMN, ACROSS, SLICE)),
    (aten.add.Tensor, (X, ROW), {"alpha": 2}),
    (aten.mul.Tensor, (ROW, COLUMN), {}),
    (aten.sub.Tensor, (ACROSS, ACROSS), {}),
    (aten.div.Tensor, (SLICE, ROW), {}),
    *((op, (X,), {}) for op in (aten.exp.default, aten.cos.default, aten.sin.default)),
    (aten.silu.default, (ACROSS,), {}),
    (aten.sigmoid.default, (SLICE,), {}),
    (aten.gelu_.default, (X,), {"approximate": "tanh"}),
    *((aten._to_copy.default, (x,), {"dtype": torch.float32}) for x in (X, ACROSS, SLICE)),
    (aten.empty.memory_format, ([3, 4],), ON_META),
    (aten.empty_like.default, (X,), {}),
    (aten.empty_like.default, (X,), {"dtype": torch.float32}),
    (aten.arange.default, (7,), ON_META),
    *((aten.cat.default, ([X, X], dim), {}) for dim in (0, 1, -1)),
    *((aten.stack.default, ([X, x], dim), {}) for x in (X, ACROSS) for dim in (0, 1, -1)),
    *((aten.std.correction, (x,), {}) for x in (X, WIDE)),
    (aten.native_layer_norm.default, (X, [8], None, None, 1e-6), {}),
]
LEFT_TO_TORCH: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (aten.add.Tensor, (X, WIDE), {}),
    (aten.add.Tensor, (X, torch.ones(8, dtype=torch.bfloat16)), {}),
    (aten.div.Tensor, (empty(3, dtype=torch.int64), 2), {}),
    (aten._to_copy.default, (X,), {"device": torch.device("cpu")}),
    (aten._to_copy.default, (torch.ones(3),), {"dtype": torch.bfloat16}),
    (aten.empty.memory_format, ([3, 4],), {"dtype": torch.float32, "device": torch.device("cpu")}),
    (aten.empty_like.default, (ACROSS,), {}),
    (aten.cat.default, ([X, WIDE],), {}),
    (aten.cat.default, ([ACROSS, X],), {}),
    (aten.stack.default, ([X, WIDE],), {}),
    (aten.std.correction, (X, [1]), {}),
    (aten.std.correction, (X,), {"keepdim": True}),
    (aten.native_layer_norm.default, (ACROSS, [8], None, None, 1e-6), {}),
]


def facts(result: Any) -> list[tuple[Any, ...]]:
    tensors = [result] if isinstance(result, Tensor) else result
    return [(each.shape, each.dtype, each.stride(), each.device) for each in tensors]


@pytest.mark.parametrize(("op", "args", "named"), COVERED)
def test_results_are_those_of_torch(op: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    assert facts(QUICK[op](*args, **named)) == facts(op(*args, **named))


def test_every_operator_is_compared() -> None:
    assert {op for op, *_ in COVERED} == set(QUICK)


@pytest.mark.parametrize(("op", "args", "named"), LEFT_TO_TORCH)
def test_what_is_not_covered_is_left_to_torch(
    op: Any, args: tuple[Any, ...], named: dict[str, Any]
) -> None:
    assert QUICK[op](*args, **named) is None
