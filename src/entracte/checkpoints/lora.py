"""LoRA files: their factors, by the transformer's module names."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from entracte.errors import LoraError
from entracte.residency.merge import Changes, Factors

from .diffusers_names import transformer_to_published
from .sources import Located, TensorFile

# What may stand before a module's name: the published prefix, then those of common trainers.
PREFIXES = (
    "base_model.model.model.diffusion_model.",
    "base_model.model.diffusion_model.",
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
)
KOHYA = "lora_unet_"

SUFFIX = re.compile(
    r"\.(?:(?P<down>lora_A|lora_down)|(?P<up>lora_B|lora_up)|(?P<alpha>alpha))"
    r"(?:\.default)?(?:\.weight)?$"
)


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One adapted module's tensors in the file."""

    down: Located
    up: Located
    alpha: Located | None

    @property
    def rank(self) -> int:
        return self.down.info.shape[0]

    def factors(self) -> Factors:
        """The factors without numbers, on the meta device."""
        scale = 1.0 if self.alpha is None else float(self.alpha.tensor()) / self.rank
        return Factors(_without_numbers(self.down), _without_numbers(self.up), scale)


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA before its factors are read.

    pairs: by module name. unmatched: keys of the file that fit no module.
    """

    path: Path
    pairs: Mapping[str, LoraPair]
    unmatched: tuple[str, ...]

    @property
    def changes(self) -> Mapping[str, Changes]:
        """By component and parameter; their tensors are on the meta device."""
        return {
            "transformer": {f"{name}.weight": pair.factors() for name, pair in self.pairs.items()}
        }

    def read(self, component: str, parameter: str, part: str, out: Tensor) -> None:  # noqa: ARG002
        """Read one tensor of a change into `out`, host memory of its shape."""
        pair = self.pairs[parameter.removesuffix(".weight")]
        {"down": pair.down, "up": pair.up}[part].read(out)

    @property
    def ranks(self) -> list[int]:
        return sorted({pair.rank for pair in self.pairs.values()})


def is_lora(file: TensorFile) -> bool:
    return any(SUFFIX.search(key) for key in file.tensors)


def open_lora(file: TensorFile, shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> LoraFile:
    """Match a LoRA to a model's parameters, whose shapes are given by component.

    Raises LoraError if it is no LoRA, matches nothing, or has factors that do not fit.
    """
    weights = shapes["transformer"]
    modules = {name.removesuffix(".weight") for name in weights if name.endswith(".weight")}
    lora = match_lora(file, modules)
    for module, pair in lora.pairs.items():
        _check_shape(file.path, module, pair, weights[f"{module}.weight"])
    return lora


def match_lora(file: TensorFile, modules: Collection[str]) -> LoraFile:
    """Match a LoRA file to modules by name alone; raises LoraError as `open_lora` does."""
    if not is_lora(file):
        raise LoraError(
            f"{file.path} is no LoRA: none of its {len(file.tensors):,} tensors is a factor"
        )
    underscored = {module.replace(".", "_"): module for module in modules}
    found: dict[str, dict[str, Located]] = {}
    unmatched = []
    for key in file.tensors:
        suffix = SUFFIX.search(key)
        module = _module(key[: suffix.start()], modules, underscored) if suffix else None
        if suffix is None or module is None:
            unmatched.append(key)
            continue
        found.setdefault(module, {})[suffix.lastgroup or ""] = Located(file, key)
    if not found:
        raise LoraError(
            f"{file.path}: 0 of {len(file.tensors):,} keys match the transformer; the first is "
            f"{unmatched[0]}. Is it a LoRA for another model?"
        )
    pairs = {}
    for module, parts in found.items():
        if "down" not in parts or "up" not in parts:
            raise LoraError(f"{file.path}: {module} has one factor and not the other")
        pairs[module] = LoraPair(parts["down"], parts["up"], parts.get("alpha"))
    return LoraFile(file.path, pairs, tuple(unmatched))


def _module(name: str, modules: Collection[str], underscored: Mapping[str, str]) -> str | None:
    if name.startswith(KOHYA):
        return underscored.get(name.removeprefix(KOHYA))
    for prefix in ("", *PREFIXES):
        if name.startswith(prefix):
            bare = name.removeprefix(prefix)
            for candidate in (bare, transformer_to_published(bare)):
                if candidate in modules:
                    return candidate
    return None


def _without_numbers(located: Located) -> Tensor:
    return torch.empty(located.info.shape, dtype=located.info.dtype, device="meta")


def _check_shape(path: Path, module: str, pair: LoraPair, shape: tuple[int, ...]) -> None:
    down, up = pair.down.info.shape, pair.up.info.shape
    fits = len(down) == len(up) == len(shape) == 2 and down[0] == up[1]
    if not fits or (up[0], down[1]) != shape:
        raise LoraError(
            f"{path}: the factors of {module}, {list(up)} and {list(down)}, do not fit its weight "
            f"{list(shape)}. Is it a LoRA for another size of the model?"
        )
