"""Models with the oracle's weights. Imports are within, as `tests/conftest.py` says."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from entracte import Engine
    from entracte.models.transformer import Transformer

    from .oracle import Oracle


@pytest.fixture(autouse=True)
def _inference():
    """With the threads that the oracle had: one takes other ways through some kernels."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def oracle() -> "Oracle":
    from .oracle import Oracle

    return Oracle()


@pytest.fixture(scope="session")
def engine() -> "Engine":
    """In a named mode: a planner would measure the machine first."""
    from entracte import Engine, Residency

    from .oracle import ROOT

    return Engine.open(ROOT, residency=Residency("resident"))


def load_transformer(dtype: "torch.dtype") -> "Transformer":
    import torch

    from entracte.checkpoints.published import open_checkpoint
    from entracte.checkpoints.safetensors_file import SafetensorsFile
    from tests.components import load_component

    from .oracle import ROOT

    _, components = open_checkpoint([SafetensorsFile(ROOT / "checkpoint.safetensors")])
    return load_component(components["transformer"], torch.device("cpu"), dtype)


@pytest.fixture(scope="session")
def float32_transformer() -> "Transformer":
    import torch

    return load_transformer(torch.float32)


@pytest.fixture(scope="session")
def transformer() -> "Transformer":
    """In bfloat16, as the engine runs it."""
    import torch

    return load_transformer(torch.bfloat16)


@pytest.fixture(scope="session")
def amx_transformer() -> "Transformer":
    """In bfloat16, summing as the oracle's CPU did."""
    import torch

    from .amx import in_amx_order

    return in_amx_order(load_transformer(torch.bfloat16))
