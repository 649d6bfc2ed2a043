"""Write what the planner knows of the published models, from their sizes: no weights are needed.

The sizes of the checkpoint and the upsampler are those that the tests keep. The text encoder's
follow from its config. The LoRA has rank 384, or as much as fits, on every linear.

    python benchmarks/published_figures.py
"""

import gzip
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Gemma3Config

from entracte.checkpoints.loading import build_component
from entracte.checkpoints.published import open_checkpoint, open_upsampler
from entracte.checkpoints.safetensors_file import TensorInfo
from entracte.checkpoints.sources import ComponentSource, Located, ModelSource
from entracte.models.gemma import TextEncoder
from entracte.models.registry import LTX_2_3
from entracte.planner.model_profile import ModelFigures, figures_of, to_json
from entracte.synthetic.random_model import random_model
from entracte.synthetic.random_sizes import FULL_GEMMA

ROOT = Path(__file__).parent.parent
SIZES = ROOT / "tests" / "data" / "ltx-2.3-full.json.gz"
TARGET = ROOT / "src" / "entracte" / "planner" / "published" / "ltx-2.3.json"
LORA_RANK = 384


@dataclass(frozen=True, slots=True)
class Header:
    """Looks like a SafetensorsFile of which only the header was read."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    quantised: str | None = None

    @classmethod
    def of(cls, shapes: Mapping[str, Any], metadata: Mapping[str, Any]) -> "Header":
        infos = {
            name: TensorInfo(torch.bfloat16, tuple(shape), 0, 2 * torch.Size(shape).numel())
            for name, shape in shapes.items()
        }
        return cls(Path("published.safetensors"), metadata, infos)

    @property
    def config(self) -> Any:
        return self.metadata["config"]


def published_source() -> ModelSource:
    """The published model, without files."""
    listing = json.loads(gzip.decompress(SIZES.read_bytes()))
    upsampler = listing["upsampler"]
    version, components = open_checkpoint([Header.of(listing["tensors"], listing["metadata"])])
    components["upsampler"] = open_upsampler(Header.of(upsampler["tensors"], upsampler["metadata"]))
    components["text_encoder"] = gemma()
    lora = distilled_lora(build_component(components["transformer"], LTX_2_3))
    return ModelSource(version, components, Path(), (lora, 1.0))


def gemma() -> ComponentSource:
    config = Gemma3Config(text_config=FULL_GEMMA)
    with torch.device("meta"):
        encoder = TextEncoder(config)
    shapes = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
    header = Header.of(shapes, {})
    tensors = {name: Located(header, name) for name in shapes}
    return ComponentSource("text_encoder", config.to_dict(), tensors)


def distilled_lora(transformer: nn.Module) -> Header:
    shapes = {}
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            outputs, inputs = module.weight.shape
            rank = min(LORA_RANK, outputs, inputs)
            shapes[f"diffusion_model.{name}.lora_A.weight"] = (rank, inputs)
            shapes[f"diffusion_model.{name}.lora_B.weight"] = (outputs, rank)
    return Header.of(shapes, {})


def published_figures() -> ModelFigures:
    return figures_of(published_source(), torch.bfloat16)


def other_figures(version: str) -> ModelFigures:
    """Of LTX-2.0 or 2.5, from the sizes that random weights have."""
    with tempfile.TemporaryDirectory() as folder:
        return figures_of(random_model("full", Path(folder), version=version), torch.bfloat16)


def main() -> None:
    TARGET.parent.mkdir(exist_ok=True)
    found = {"2.3": published_figures()}
    found |= {version: other_figures(version) for version in ("2.0", "2.5")}
    for version, figures in found.items():
        target = TARGET.with_name(f"ltx-{version}.json")
        target.write_text(json.dumps(to_json(figures), indent=1) + "\n")
        print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
