"""Merged weights equal the official implementation's bit for bit, of one LoRA and of two."""

import pytest
import torch
from safetensors.torch import load_file

from entracte.checkpoints.lora import open_lora
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import Located
from entracte.residency.merge import Change, merge
from tests.components import read_changes

from .oracle import FLOAT32, ROOT, distance

MERGES = ROOT.parent / "merges"

# LoRAs and strengths, in the order in which they are merged.
STACKS = {
    "distilled0.25": [("distilled", 0.25)],
    "distilled0.5": [("distilled", 0.5)],
    "style0.6": [("style", 0.6)],
    "style0.7+distilled0.25": [("style", 0.7), ("distilled", 0.25)],
    "style0.7+distilled1.0": [("style", 0.7), ("distilled", 1.0)],
}


@pytest.fixture(scope="module")
def base() -> dict[str, Located]:
    _, components = open_checkpoint([SafetensorsFile(ROOT / "checkpoint.safetensors")])
    return dict(components["transformer"].tensors)


@pytest.fixture(scope="module")
def loras(base: dict[str, Located]) -> dict[str, dict[str, Change]]:
    shapes = {"transformer": {name: each.info.shape for name, each in base.items()}}
    files = {name: MERGES / f"{name}-lora.safetensors" for name in ("style", "alpha")}
    files["distilled"] = ROOT / "distilled-lora.safetensors"
    return {
        name: read_changes(open_lora(SafetensorsFile(path), shapes)) for name, path in files.items()
    }


@pytest.mark.parametrize("stack", STACKS)
def test_official_merges(
    base: dict[str, Located], loras: dict[str, dict[str, Change]], stack: str
) -> None:
    recorded = load_file(MERGES / "expected.safetensors")
    names = [name for name in recorded if name.startswith(f"{stack}.")]
    assert len(names) in (3, 4)
    for name in names:
        weight = name.removeprefix(f"{stack}.")
        adapters = [
            (loras[lora][weight], strength)
            for lora, strength in STACKS[stack]
            if weight in loras[lora]
        ]
        assert torch.equal(merge(base[weight].tensor(), adapters), recorded[name]), name


def test_alpha_is_honoured(base: dict[str, Located], loras: dict[str, dict[str, Change]]) -> None:
    """W + strength * alpha / rank * B @ A in float32, of modules with an alpha and without."""
    recorded = load_file(MERGES / "expected.safetensors")
    names = [name for name in recorded if name.startswith("alpha0.8.")]
    assert len(names) == 17
    for name in names:
        weight = name.removeprefix("alpha0.8.")
        merged = merge(base[weight].tensor().float(), [(loras["alpha"][weight], 0.8)])
        assert distance(merged, recorded[name]) < FLOAT32, name
