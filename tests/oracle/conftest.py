import pytest
import torch

from entracte import Engine
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.models.transformer import Transformer
from tests.components import load_component

from .amx import in_amx_order
from .oracle import ROOT, Oracle


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine.open(ROOT)


def load_transformer(dtype: torch.dtype) -> Transformer:
    _, components = open_checkpoint([SafetensorsFile(ROOT / "checkpoint.safetensors")])
    return load_component(components["transformer"], torch.device("cpu"), dtype)


@pytest.fixture(scope="session")
def float32_transformer() -> Transformer:
    return load_transformer(torch.float32)


@pytest.fixture(scope="session")
def transformer() -> Transformer:
    """In bfloat16, as the engine runs it."""
    return load_transformer(torch.bfloat16)


@pytest.fixture(scope="session")
def amx_transformer() -> Transformer:
    """In bfloat16, summing as the oracle's CPU did."""
    return in_amx_order(load_transformer(torch.bfloat16))
