"""Text from captured graphs, with a stand-in for CUDA's graphs that carries work out again."""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from entracte.models.connectors import Connectors
from entracte.models.gemma import TextEncoder
from entracte.models.kernels.calls import CapturedCalls
from entracte.residency.bound_modules import ReadyBlocks
from entracte.synthetic import demo_config

from .test_gemma import encoder
from .test_graphs import Captures


def prompts(*lengths: int) -> list[torch.Tensor]:
    return [torch.arange(length) % 50 + 3 for length in lengths]


@torch.inference_mode()
def test_layers_give_the_same_bits_for_every_prompt() -> None:
    model, captures = encoder(), Captures()
    calls = CapturedCalls(captures)
    for tokens in prompts(20, 7, 200):  # of one shape, at different positions
        assert torch.equal(model.alone(tokens, calls.run), model.alone(tokens))
    layers = len(model.model.layers)
    assert captures.made == layers  # the first layer's in the second prompt
    for tokens in prompts(300, 280, 20):
        assert torch.equal(model.alone(tokens, calls.run), model.alone(tokens))
    assert captures.made == 2 * layers


@torch.inference_mode()
def test_padding_is_masked_in_graphs_too() -> None:
    model, calls = encoder(), CapturedCalls(Captures())
    for tokens in prompts(20, 7):
        assert torch.equal(model.padded(tokens, calls.run), model.padded(tokens))


@torch.inference_mode()
def test_layers_that_take_turns_at_one_place_share_a_graph() -> None:
    """As in a slot of the device manager."""
    model, captures = encoder(), Captures()
    calls = CapturedCalls(captures)
    expected = [model.alone(tokens) for tokens in prompts(20, 7)]
    weights = [copy.deepcopy(layer.state_dict()) for layer in model.model.layers]
    place = model.model.layers[0]

    def streamed() -> Iterator[nn.Module]:
        for each in weights:
            place.load_state_dict(each)
            yield place

    model.model.layers = ReadyBlocks(len(weights), streamed)
    for tokens, states in zip(prompts(20, 7), expected, strict=True):
        assert torch.equal(model.alone(tokens, calls.run), states)
    assert captures.made == 1


@torch.inference_mode()
def test_connectors_give_the_same_bits() -> None:
    torch.manual_seed(3)
    text = encoder()
    assert isinstance(text, TextEncoder)
    layers = text.config.num_hidden_layers + 1
    connectors = Connectors(demo_config.TRANSFORMER, text.config.hidden_size * layers)
    for parameter in connectors.parameters():
        nn.init.normal_(parameter, std=0.1)
    connectors.restore_buffers()
    captures = Captures()
    calls = CapturedCalls(captures)
    for length in (20, 7, 300):  # the context's shape is the same for all
        states = torch.randn(length, text.config.hidden_size, layers)
        plain, captured = connectors(states), connectors(states, calls.run)
        assert torch.equal(captured.video, plain.video)
        assert torch.equal(captured.audio, plain.audio)
    blocks = (
        *connectors.video_embeddings_connector.transformer_1d_blocks,
        *connectors.audio_embeddings_connector.transformer_1d_blocks,
    )
    assert captures.made == len(blocks)
