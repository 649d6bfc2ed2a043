"""The text encoder: a prompt alone has the states that it has in padding."""

import pytest
import torch
from torch import Tensor
from transformers import Gemma3Config

from entracte.models.gemma import TextEncoder
from entracte.models.gemma_norm import Norm
from entracte.planner.meter import META, counting
from entracte.synthetic import demo_config

CONFIG = demo_config.GEMMA | {
    "text_config": demo_config.GEMMA["text_config"] | {"sliding_window": 1024}
}


def encoder(**values: int) -> TextEncoder:
    config = Gemma3Config(**CONFIG | {"text_config": CONFIG["text_config"] | values})
    torch.manual_seed(5)
    return TextEncoder(config).eval()


@pytest.mark.parametrize("count", [1, 256, 257])
def test_a_prompt_alone(count: int) -> None:
    model = encoder()
    tokens = torch.arange(count) % 50 + 3
    with torch.inference_mode():
        alone, padded = model.alone(tokens), model.padded(tokens)
    assert alone.shape == (count, model.config.hidden_size, model.config.num_hidden_layers + 1)
    torch.testing.assert_close(alone, padded, rtol=1e-4, atol=1e-5)


def test_a_cpu_has_the_official_bits() -> None:
    model, tokens = encoder(), torch.arange(3, 20)
    with torch.inference_mode():
        assert torch.equal(model(tokens), model.padded(tokens))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quick_norm(dtype: torch.dtype) -> None:
    norm = Norm(48).to(dtype)
    with torch.inference_mode():
        norm.weight.normal_()
        x = torch.randn(2, 3, 5, 48).to(dtype).transpose(1, 2)
        torch.testing.assert_close(norm.quick(x), norm(x))


@pytest.mark.parametrize(("window", "rows"), [(1024, 256), (64, 1024)])
def test_a_gpu_computes_the_prompt_only_if_all_of_it_is_attended_to(window: int, rows: int) -> None:
    with torch.device(META):
        model = encoder(sliding_window=window)
    seen: list[Tensor] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with counting():
        model(torch.zeros(20, dtype=torch.int64, device=META))
    assert seen[0].shape[1] == rows
