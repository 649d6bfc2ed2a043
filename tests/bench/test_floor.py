"""The floor has the products and attentions of the engine's blocks, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from entracte.bench.floor import Evaluation, Floor, random_blocks
from entracte.models.connectors import CONTEXT_TOKENS
from entracte.models.transformer import (
    Pass,
    StreamInput,
    StreamRotary,
    TokenRun,
    Transformer,
    TransformerConfig,
)
from entracte.models.transformer.execution import run_blocks
from entracte.synthetic.demo_config import TRANSFORMER

META = torch.device("meta")
VIDEO, AUDIO = 40, 6
SKIPPED = Pass(skip_video=frozenset([1]), skip_audio=frozenset([1]))
GUIDED = (Pass(), Pass(context=1), SKIPPED)


@pytest.fixture(scope="module")
def config() -> TransformerConfig:
    return TransformerConfig.from_header(TRANSFORMER)


def flops(step: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


@torch.inference_mode()
def flops_of_floor(config: TransformerConfig, passes: tuple[Pass, ...], rows: int) -> int:
    with META:
        blocks = random_blocks(config, META, torch.bfloat16)
        return flops(Floor(blocks, config, Evaluation(VIDEO, AUDIO, passes, rows)))


@torch.inference_mode()
def flops_of_engine(config: TransformerConfig, passes: tuple[Pass, ...], rows: int) -> int:
    """Of the loop over the blocks alone."""
    counted = []

    def counting(*arguments: Any) -> Any:
        made = []
        counted.append(flops(lambda: made.append(run_blocks(*arguments))))
        return made[0]

    with META:
        model = Transformer(config).to(torch.bfloat16)
        contexts = 1 + max(each.context for each in passes)

        def stream(tokens: int, width: int, rotary: StreamRotary) -> StreamInput:
            sigma = torch.ones(1)
            latent = torch.zeros(1, tokens, 128, dtype=torch.bfloat16)
            text = torch.zeros(contexts, CONTEXT_TOKENS, width, dtype=torch.bfloat16)
            return StreamInput(latent, sigma, [TokenRun(0, tokens, 0)], sigma, text, rotary)

        positions = torch.zeros(3, VIDEO, device="cpu"), torch.zeros(1, AUDIO, device="cpu")
        with torch.device("cpu"):
            rotary = model.rotary(*positions, META, torch.bfloat16)
        model(
            stream(VIDEO, config.video.context_dim, rotary[0]),
            stream(AUDIO, config.audio.context_dim, rotary[1]),
            passes,
            rows,
            counting,
        )
    return counted[0]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("passes", [GUIDED[:1], GUIDED, (SKIPPED,)], ids=len)
def test_it_computes_what_the_blocks_do(
    config: TransformerConfig, passes: tuple[Pass, ...], rows: int
) -> None:
    assert flops_of_floor(config, passes, rows) == flops_of_engine(config, passes, rows)


@pytest.mark.slow
def test_an_isolated_pass_counts_as_a_whole_one(config: TransformerConfig) -> None:
    whole = flops_of_floor(config, (Pass(),), 1)
    assert flops_of_floor(config, (Pass(isolated=True),), 1) == whole
    assert flops_of_engine(config, (Pass(isolated=True),), 1) < whole


@torch.inference_mode()
def test_it_runs(config: TransformerConfig) -> None:
    cpu = torch.device("cpu")
    blocks = random_blocks(config, cpu, torch.bfloat16)
    assert len(blocks) == config.layers  # so small that caches would hold fewer
    Floor(blocks, config, Evaluation(VIDEO, AUDIO, GUIDED, 2))()
