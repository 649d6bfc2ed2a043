"""Blocks from captured graphs, with a stand-in for CUDA's graphs that carries work out again."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from entracte.models.kernels import graphs
from entracte.models.kernels.graphs import CapturedBlocks
from entracte.models.transformer import Pass, RunBlocks, Transformer, run_blocks
from entracte.models.transformer.elementwise import PLAIN
from entracte.residency.merge import Factors
from entracte.residency.unmerged import LoraLinear

from .test_passes import PASSES, inputs, model  # noqa: F401


class Captures:
    """Counts captures, and forgets what was computed while capturing, as a device does."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, work: Callable[[], object]) -> Callable[[], None]:
        self.made += 1

        def replay() -> None:
            work()

        return replay


def forward(
    transformer: Transformer,
    run: RunBlocks,
    passes: list[Pass],
    rows_at_once: int = 4,
    mask: list[float] | None = None,
    seed: int = 0,
) -> list[Tensor]:
    video, audio = inputs(transformer, mask)
    for each in (video, audio):
        torch.manual_seed(seed)
        each.latent.copy_(torch.randn(each.latent.shape))
        each.contexts.copy_(torch.randn(each.contexts.shape))
    made = transformer(video, audio, passes, rows_at_once=rows_at_once, run=run)
    return [tensor for each in made for tensor in (each.video, each.audio)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.fixture
def captures() -> Captures:
    return Captures()


@pytest.fixture
def captured(captures: Captures) -> RunBlocks:
    return CapturedBlocks(PLAIN, captures).run


@pytest.mark.sampled(2)
@pytest.mark.parametrize("mask", [None, [0.0] * 4 + [1.0] * 8])
@pytest.mark.parametrize("rows_at_once", [1, 3, 4])
def test_graphs_give_the_bits_of_the_loop(
    model: Transformer,  # noqa: F811
    captured: RunBlocks,
    captures: Captures,
    rows_at_once: int,
    mask: list[float] | None,
) -> None:
    for seed in range(4):  # other latents and contexts at other addresses
        expected = forward(model, run_blocks, PASSES, rows_at_once, mask, seed)
        assert same(forward(model, captured, PASSES, rows_at_once, mask, seed), expected)
    assert captures.made == len(model.transformer_blocks)


def test_nothing_is_captured_twice_while_two_shapes_take_turns(
    model: Transformer,  # noqa: F811
    captured: RunBlocks,
    captures: Captures,
) -> None:
    for _ in range(3):
        forward(model, captured, PASSES)
        forward(model, captured, PASSES[:1])
    assert captures.made == 2 * len(model.transformer_blocks)


@pytest.mark.slow
def test_graphs_of_the_shapes_used_last_are_kept(
    model: Transformer,  # noqa: F811
    captured: RunBlocks,
    captures: Captures,
) -> None:
    forwards = [PASSES[:number] for number in (1, 2, 4)]
    for passes in (*forwards, *forwards):
        for _ in range(2):
            expected = forward(model, run_blocks, passes)
            assert same(forward(model, captured, passes), expected)
    assert captures.made == 2 * len(forwards) * len(model.transformer_blocks)


def test_blocks_that_take_turns_at_one_place_share_a_graph(
    model: Transformer,  # noqa: F811
    captured: RunBlocks,
    captures: Captures,
) -> None:
    """As in a slot of the device manager: other weights, at the same addresses."""
    expected = forward(model, run_blocks, PASSES[:1])
    weights = [copy.deepcopy(block.state_dict()) for block in model.transformer_blocks]
    moved = copy.deepcopy(model)
    place = moved.transformer_blocks[0]

    def streamed(blocks: object, *rest: object) -> object:
        def lend() -> object:
            for each in weights:
                place.load_state_dict(each)
                yield place

        return captured(lend(), *rest)  # type: ignore[arg-type]

    for _ in range(2):
        assert same(forward(moved, streamed, PASSES[:1]), expected)  # type: ignore[arg-type]
    assert captures.made == 1


def test_weights_at_another_place_are_captured_again(
    model: Transformer,  # noqa: F811
    captured: RunBlocks,
    captures: Captures,
) -> None:
    forward(model, captured, PASSES[:1])
    moved = copy.deepcopy(model)
    for parameter in moved.parameters():
        parameter.mul_(0.5)
    for _ in range(2):
        expected = forward(moved, run_blocks, PASSES[:1])
        assert same(forward(moved, captured, PASSES[:1]), expected)
    assert captures.made == 2 * len(model.transformer_blocks) - 1


def test_a_block_whose_linears_add_something_is_not_captured(
    model: Transformer,  # noqa: F811
    captured: RunBlocks,
    captures: Captures,
) -> None:
    adapted = copy.deepcopy(model)
    attention = adapted.transformer_blocks[1].attn1
    linear = attention.to_q
    adds = Factors(torch.randn(2, linear.in_features), torch.randn(linear.out_features, 2))
    attention.to_q = LoraLinear(linear, [(adds, 1.0)], [])
    for _ in range(2):
        expected = forward(adapted, run_blocks, PASSES)
        assert same(forward(adapted, captured, PASSES), expected)
    assert not same(expected, forward(model, run_blocks, PASSES))
    assert captures.made == len(adapted.transformer_blocks) - 1


def test_large_batches_are_run_by_the_loop(
    model: Transformer,  # noqa: F811
    captured: RunBlocks,
    captures: Captures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphs, "MOST_TOKENS", 12)
    forward(model, captured, PASSES)
    assert captures.made == 0
    forward(model, captured, PASSES, rows_at_once=1)
    assert captures.made > 0
