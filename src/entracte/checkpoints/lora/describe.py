"""Describes a LoRA file from its keys, alphas and configuration."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ..parts import part_of
from ..published import parameter_name
from ..published_sizes import published_keys
from ..sources import TensorFile
from .changes import Group
from .config import LoraSettings, read_settings
from .file import REFERENCE
from .names import Names
from .sorting import first_of, sort_keys

BLOCK = re.compile(r"transformer_blocks\.(\d+)\.")

# A LoRA with at least this many blocks is assumed to be for the published transformer.
MANY_BLOCKS = 8


def describe_lora(file: TensorFile) -> tuple[str, dict[str, Any]]:
    """The kind of a LoRA, and facts about it; no factor is read. Raises LoraError if it is damaged.

    Modules are those of the published model; a smaller one has them under the same names.
    """
    parameters = published_parameters()
    keys = sort_keys(file, Names(parameters))
    settings, remarks = read_settings(file)
    kinds = Counter(kind for group in keys.groups for kind in group.kinds)
    reference = {name: value for name, value in file.metadata.items() if REFERENCE.fullmatch(name)}
    facts: dict[str, Any] = {
        "ranks": sorted({rank for group in keys.groups for rank in group.ranks}),
        "alpha": _alphas(keys.groups, settings.values()),
        "keys are like": next(iter(file.tensors)),
        "covers": _coverage(keys.groups, parameters["transformer"]),
    }
    connectors = [m for g in keys.groups for m in g.modules if m.component == "connectors"]
    if connectors:
        facts["changes in the connectors"] = len(connectors)
    if len(kinds) > 1:
        facts["kinds"] = dict(sorted(kinds.items()))
    facts["keys that cannot be applied"] = len(keys.left_out)
    if keys.others:
        facts["such as"] = {kind: first_of(found) for kind, found in keys.others.items()}
    if keys.text_encoder:
        facts["keys of a text encoder"] = len(keys.text_encoder)
    if remarks:
        facts["remarks"] = list(remarks)
    kind = "DoRA" if "DoRA" in kinds else " and ".join(sorted(kinds)) or "adapter"
    return f"IC-{kind}" if reference else kind, facts | reference


def published_parameters() -> dict[str, list[str]]:
    """The names of every parameter of LTX-2.3 that a LoRA may change, by component."""
    found: dict[str, list[str]] = {"transformer": [], "connectors": []}
    for key in sorted(published_keys()):
        part = part_of(key)
        if part is not None and part.component in found:
            found[part.component].append(parameter_name(key, part))
    return found


def _coverage(groups: Sequence[Group], parameters: Iterable[str]) -> str:
    modules = {m.name for group in groups for m in group.modules if m.component == "transformer"}
    blocks = [int(found[1]) for name in modules if (found := BLOCK.match(name))]
    layers = 1 + max(blocks, default=-1)
    linears = {name.removesuffix(".weight") for name in parameters if name.endswith(".weight")}
    linears = {name for name in linears if not name.endswith(("q_norm", "k_norm"))}
    deepest = 1 + max(int(found[1]) for name in linears if (found := BLOCK.match(name)))
    if not MANY_BLOCKS >= layers > 0:
        layers = deepest
    there = [name for name in linears if not (found := BLOCK.match(name)) or int(found[1]) < layers]
    covered = len(modules.intersection(there))
    return f"{covered:,} of {len(there):,} linears of {layers} blocks"


def _alphas(groups: Iterable[Group], settings: Iterable[LoraSettings]) -> str | list[float]:
    """The alphas beside factors, or from elsewhere."""
    found = {alpha for group in groups if (alpha := group.alpha) is not None}
    if found:
        return sorted(found)
    for each in settings:
        alpha = each.config.lora_alpha if each.config.alpha is None else each.config.alpha
        if alpha is not None:
            stabilised = ", rank-stabilised" if each.config.use_rslora else ""
            return f"{alpha:g} by {each.where}{stabilised}"
    return "none"
