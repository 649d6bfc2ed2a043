"""A model's figures: the bytes of its weights, and the laws of what its stages take."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from itertools import groupby
from math import prod
from types import MappingProxyType
from typing import Any

import torch

from entracte.checkpoints.loading import FileSource, build_component, prepare_module
from entracte.checkpoints.lora import ADAPTED, open_lora
from entracte.checkpoints.sources import ModelSource
from entracte.errors import RequestError
from entracte.models import gemma, gemma4
from entracte.models.float8 import Float8Weights
from entracte.models.formats.products import CHOICE, float8_parts
from entracte.models.formats.schemes import SCHEMES, format_in
from entracte.models.registry import VERSIONS, ModelVersion
from entracte.models.transformer import TransformerConfig
from entracte.models.transformer.config import StreamConfig
from entracte.residency import (
    AdapterLayout,
    Changes,
    Computed,
    MemoryAdapter,
    TensorSpec,
    UnitLayout,
    as_stored,
    computed_parts,
    lay_out,
    scratch_layouts,
    unit_of,
)

from .meta_ops import META
from .stage_laws import Cost, StageCosts, trace_stages

TRANSFORMER = "transformer"
DISTILLED = "distilled"

# How the transformer's keys begin in the published file.
PREFIX = "model.diffusion_model."

# Models whose figures come with the package: their names, and the file in `published/`.
PUBLISHED: Mapping[str, str] = MappingProxyType(
    {
        "ltx-2.3": "ltx-2.3.json",
        "Lightricks/LTX-2.3": "ltx-2.3.json",
        "ltx-2.0": "ltx-2.0.json",
        "Lightricks/LTX-2": "ltx-2.0.json",
        "ltx-2.5": "ltx-2.5.json",
        "Lightricks/LTX-2.5": "ltx-2.5.json",
    }
)


@dataclass(frozen=True, slots=True)
class AdapterFigures:
    """One adapter of a component, by unit; the last unit is what is outside the blocks.

    nbytes: of the factors, as the device manager lays them out. flops: of merging them.
    """

    nbytes: tuple[int, ...]
    flops: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What the planner knows of a model.

    units: of every component, the bytes of every unit as the device manager lays it out; the last
        is what is outside the blocks, and the only one of a component without blocks.
    adapters: "distilled" is the LoRA of stage 2, where the model has one.
    itemsize: bytes of a number of the model's dtype.
    stored: of components with units that are stored in another form than they are computed with,
        the bytes of those units as they are stored, by number.
    float8: of the numbers in the transformer's linears, the share that is multiplied in float8.
    scratch: bytes that a block of it takes while its weights are quantised for that.
    """

    version: ModelVersion
    units: Mapping[str, tuple[int, ...]]
    transformer: TransformerConfig
    adapters: Mapping[str, AdapterFigures]
    costs: StageCosts
    itemsize: int
    stored: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    float8: float = 0.0
    scratch: int = 0

    @property
    def nbytes(self) -> int:
        """Of all weights, adapters included."""
        weights = sum(sum(units) for units in self.units.values())
        return weights + sum(sum(adapter.nbytes) for adapter in self.adapters.values())


def figures_of(source: ModelSource, dtype: torch.dtype) -> ModelFigures:
    """A model's figures, from the headers of its files.

    Raises CheckpointError where a component is missing or its tensors are not what it needs.
    """
    version = source.version
    units, stored, modules = {}, {}, {}
    scratch, float8 = 0, 0.0
    for name, component in source.components.items():
        # Buffers that no file holds are made for real, since the layout asks for them.
        module = prepare_module(build_component(component, version), torch.device("cpu"))
        specs = FileSource(component, version, dtype).specs
        layouts = lay_out(module, computed_parts(specs), version.blocks.get(name))
        units[name] = tuple(layout.nbytes for layout in layouts)
        at_rest = {unit: as_stored(layout, specs) for unit, layout in enumerate(layouts)}
        stored[name] = {
            unit: layout.nbytes for unit, layout in at_rest.items() if layout is not layouts[unit]
        }
        if name != TRANSFORMER:
            modules[name] = module.to(META)
        else:
            scratch = _scratch(specs, version.blocks[name], len(layouts) - 1)
            float8 = _share_in_float8(specs)
    transformer = source.components[TRANSFORMER]
    config = TransformerConfig.from_header(transformer.config)
    adapters = {}
    if source.distilled_lora is not None:
        file, _ = source.distilled_lora
        shapes = {
            name: {
                key: located.info.shape for key, located in source.components[name].tensors.items()
            }
            for name in ADAPTED
            if name in source.components
        }
        changes = open_lora(file, shapes).changes[TRANSFORMER]
        adapters[DISTILLED] = _adapter(TRANSFORMER, changes, version, config.layers)
    stages = trace_stages(modules, version, dtype)
    stored = {name: sizes for name, sizes in stored.items() if sizes}
    return ModelFigures(
        version, units, config, adapters, stages, dtype.itemsize, stored, float8, scratch
    )


def adapter_figures(component: str, changes: Changes, model: ModelFigures) -> AdapterFigures:
    """The figures of an adapter of a component; its tensors are not read."""
    return _adapter(component, changes, model.version, len(model.units[component]) - 1)


def published(name: str) -> ModelFigures:
    """The figures of a published model in bfloat16, without its files.

    Raises RequestError for a name that is not known.
    """
    if name not in PUBLISHED:
        raise RequestError(f"no figures are known of {name!r}; known: {', '.join(PUBLISHED)}")
    file = files("entracte.planner") / "published" / PUBLISHED[name]
    return from_json(json.loads(file.read_text()))


def with_weights(model: ModelFigures, component: str, scheme: str) -> ModelFigures:
    """A published model's figures with a component's weights stored in a format.

    component: "transformer" or "text_encoder". scheme: one of `models.formats.schemes.SCHEMES`.
    Raises RequestError for others.
    """
    if scheme not in SCHEMES:
        raise RequestError(f"weights are stored as {', '.join(SCHEMES)}; not {scheme!r:.40}")
    blocks, count = model.version.blocks[component], len(model.units[component]) - 1
    tensors: dict[int, dict[str, TensorSpec]] = {}
    quantised = set()
    for name, shape in _published_shapes(component, model.version).items():
        unit = unit_of(name, blocks, count)
        found = format_in(scheme, name, blocks, count)
        parts = {"": (torch.bfloat16, shape)} if found is None else found.parts(*shape)
        if found is not None:
            quantised.add(unit)
        for end, part in parts.items():
            tensors.setdefault(unit, {})[name + end] = TensorSpec(*part)
    stored = {
        unit: UnitLayout.of([((name,), spec) for name, spec in tensors[unit].items()]).nbytes
        for unit in sorted(quantised)
    }
    return replace(model, stored={**model.stored, component: stored})


def in_float8(model: ModelFigures, weights: str | None = None) -> ModelFigures:
    """A published model's figures, its transformer multiplying in float8.

    weights: as which they are stored, where not as bfloat16; see `with_weights`.
    """
    blocks, count = model.version.blocks[TRANSFORMER], len(model.units[TRANSFORMER]) - 1
    specs = {}
    for name, shape in _published_shapes(TRANSFORMER, model.version).items():
        parts = float8_parts(name, shape, blocks, count)
        computed = None
        if parts is not None:
            tensors = {end: TensorSpec(*part) for end, part in parts.items()}
            computed = Computed(Float8Weights(), tensors)
        specs[name] = TensorSpec(torch.bfloat16, shape, computed=computed)
    units, stored = list(model.units[TRANSFORMER]), dict(model.stored.get(TRANSFORMER, {}))
    by_unit: dict[int, list[tuple[tuple[str, ...], TensorSpec]]] = {}
    for name, part in computed_parts(specs).items():
        by_unit.setdefault(unit_of(name, blocks, count), []).append(((name,), part))
    for unit in scratch_layouts(specs, blocks, count):
        if weights == CHOICE:
            units[unit] = stored.pop(unit)
        else:
            stored[unit] = stored.get(unit, units[unit])
            units[unit] = UnitLayout.of(by_unit[unit]).nbytes
    return replace(
        model,
        units={**model.units, TRANSFORMER: tuple(units)},
        stored={**model.stored, TRANSFORMER: stored},
        float8=_share_in_float8(specs),
        scratch=_scratch(specs, blocks, count),
    )


def _scratch(specs: Mapping[str, TensorSpec], blocks: str, count: int) -> int:
    layouts = scratch_layouts(specs, blocks, count).values()
    return max((layout.nbytes for layout in layouts), default=0)


def _share_in_float8(specs: Mapping[str, TensorSpec]) -> float:
    matrices = [spec for spec in specs.values() if len(spec.shape) == 2]
    whole = sum(prod(spec.shape) for spec in matrices)
    return sum(prod(spec.shape) for spec in matrices if spec.computed is not None) / max(1, whole)


def _published_shapes(component: str, version: ModelVersion) -> dict[str, tuple[int, ...]]:
    """Of the parameters of a version's published model, by name."""
    from entracte.synthetic.random_sizes import full_sizes  # builds models to know their shapes

    sizes = full_sizes(version.name)
    if component != TRANSFORMER:
        rename = gemma4.file_to_module if version.own_gemma else gemma.file_to_module
        named = {rename(key): shape for key, shape in sizes.gemma.items()}
        return {name: shape for name, shape in named.items() if name is not None}
    return {
        key.removeprefix(PREFIX): shape
        for key, shape in sizes.checkpoint.items()
        if key.startswith(PREFIX) and "connector" not in key
    }


def to_json(model: ModelFigures) -> dict[str, Any]:
    """As JSON can hold it; numbers of units that repeat are written once, with their count."""
    return {
        "version": model.version.name,
        "units": {name: _runs(units) for name, units in model.units.items()},
        "transformer": asdict(model.transformer),
        "adapters": {
            name: {"nbytes": _runs(adapter.nbytes), "flops": _runs(adapter.flops)}
            for name, adapter in model.adapters.items()
        },
        "costs": asdict(model.costs),
        "itemsize": model.itemsize,
    } | ({"stored": model.stored} if model.stored else {})


def from_json(values: Mapping[str, Any]) -> ModelFigures:
    """The inverse of `to_json`."""
    config = dict(values["transformer"])
    for stream in ("video", "audio"):
        fields = dict(config[stream])
        fields["max_positions"] = tuple(fields["max_positions"])
        config[stream] = StreamConfig(**fields)
    return ModelFigures(
        version=VERSIONS[values["version"]],
        units={name: _from_runs(runs) for name, runs in values["units"].items()},
        transformer=TransformerConfig(**config),
        adapters={
            name: AdapterFigures(_from_runs(adapter["nbytes"]), _from_runs(adapter["flops"]))
            for name, adapter in values["adapters"].items()
        },
        costs=StageCosts(**{name: Cost(**law) for name, law in values["costs"].items()}),
        itemsize=values["itemsize"],
        stored={
            name: {int(unit): nbytes for unit, nbytes in sizes.items()}
            for name, sizes in values.get("stored", {}).items()
        },
    )


def _adapter(
    component: str, changes: Changes, version: ModelVersion, blocks: int
) -> AdapterFigures:
    laid_out = AdapterLayout.of(MemoryAdapter(changes), version.blocks.get(component), blocks)
    flops = tuple(sum(changes[name].flops for name in names) for names in laid_out.names)
    return AdapterFigures(laid_out.sizes, flops)


def _runs(numbers: Iterable[int]) -> list[list[int]]:
    return [[len(list(same)), number] for number, same in groupby(numbers)]


def _from_runs(runs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(number for count, number in runs for _ in range(count))
