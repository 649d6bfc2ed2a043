import pytest
import torch

from entracte import Engine, Residency
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.models.transformer import Transformer
from tests.components import load_component

from .amx import in_amx_order
from .oracle import ROOT, Oracle


@pytest.fixture(autouse=True)
def _inference():
    """With the threads that the oracle had: one takes other ways through some kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="session")
def engine() -> Engine:
    """In a named mode: a planner would measure the machine first."""
    return Engine.open(ROOT, residency=Residency("resident"))


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
