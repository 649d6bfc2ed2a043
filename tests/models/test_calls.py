"""Text from captured graphs, with a stand-in for CUDA's graphs that carries work out again."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from entracte.models.kernels import calls
from entracte.models.kernels.calls import CapturedCalls
from entracte.residency.bound_modules import ReadyBlocks

from .test_gemma import encoder
from .test_graphs import Captures


def prompts(*lengths: int) -> list[torch.Tensor]:
    return [torch.arange(length) % 50 + 3 for length in lengths]


@torch.inference_mode()
def test_layers_give_the_same_bits_for_every_prompt() -> None:
    model, captures = encoder(), Captures()
    captured = CapturedCalls(captures)
    for tokens in prompts(20, 7, 200):  # of one shape, at different positions
        assert torch.equal(model.alone(tokens, captured.run), model.alone(tokens))
    layers = len(model.model.layers)
    assert captures.made == layers  # the first layer's in the second prompt
    for tokens in prompts(300, 280, 20):
        assert torch.equal(model.alone(tokens, captured.run), model.alone(tokens))
    assert captures.made == 2 * layers


@torch.inference_mode()
def test_masks_are_inputs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MOST_TOKENS", 1024)
    model, captured = encoder(), CapturedCalls(Captures())
    for tokens in prompts(20, 7):
        assert torch.equal(model.padded(tokens, captured.run), model.padded(tokens))


@torch.inference_mode()
def test_long_prompts_are_not_captured() -> None:
    model, captures = encoder(), Captures()
    for _ in range(2):
        model.alone(*prompts(600), CapturedCalls(captures).run)
    assert captures.made == 0


@torch.inference_mode()
def test_layers_that_take_turns_at_one_place_share_a_graph() -> None:
    """As in a slot of the device manager."""
    model, captures = encoder(), Captures()
    captured = CapturedCalls(captures)
    expected = [model.alone(tokens) for tokens in prompts(20, 7)]
    weights = [copy.deepcopy(layer.state_dict()) for layer in model.model.layers]
    place = model.model.layers[0]

    def streamed() -> Iterator[nn.Module]:
        for each in weights:
            place.load_state_dict(each)
            yield place

    model.model.layers = ReadyBlocks(len(weights), streamed)
    for tokens, states in zip(prompts(20, 7), expected, strict=True):
        assert torch.equal(model.alone(tokens, captured.run), states)
    assert captures.made == 1
