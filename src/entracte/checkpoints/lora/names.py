"""From module names in LoRA files to our modules, for all known trainers.

A name in a file is a module's name, in the published or in diffusers' form, behind prefixes of the
trainer's wrappers. Some trainers write it with `_` in place of every dot.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..diffusers_names import (
    connectors_to_diffusers,
    connectors_to_published,
    transformer_to_diffusers,
    transformer_to_published,
)

# Wrappers of models. Names may begin with any of these, in any order and number.
ROOTS = frozenset(
    {"base_model", "connectors", "diffusion_model", "dit", "embeddings_processor"}
    | {"feature_extractor", "model", "module", "net", "pipe", "transformer", "unet"}
    | {"velocity_model"}
)
# Wrappers of single modules by torch, anywhere within a name.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
UNDERSCORED_WRAPPERS = re.compile("|".join(f"_?{wrapper[1:]}_" for wrapper in WRAPPERS))
# Prefixes by trainers, mostly of underscored names.
TRAINERS = re.compile(r"(?:lora_unet|lora_transformer|lora_dit|lora_connectors|lycoris)_{1,2}")

TEXT_ENCODER = re.compile(
    r"(?:base_model\.model\.)?"
    r"(?:(?:lora|lycoris)_(?:te|text_encoder)\d*_|(?:text_encoders?(?:_\d)?|te\d?|text_model|gemma)\.)"
)

PROJECTION = "text_embedding_projection."

# Fused projections of some attention implementations: names of the whole, and its parts.
FUSED: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("to_qkv", "qkv", "qkv_proj"): ("to_q", "to_k", "to_v"),
    ("to_kv", "kv", "kv_proj"): ("to_k", "to_v"),
}

TO_PUBLISHED = (transformer_to_published, connectors_to_published)
TO_DIFFUSERS = {"transformer": transformer_to_diffusers, "connectors": connectors_to_diffusers}


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a component, or a single parameter with that name."""

    component: str
    name: str


class Names:
    """The modules that a LoRA may change.

    parameters: the names of every adapted component's (`transformer`, `connectors`).
    """

    def __init__(self, parameters: Mapping[str, Iterable[str]]) -> None:
        self.parameters = {component: frozenset(names) for component, names in parameters.items()}
        self._dotted: dict[str, tuple[Module, ...]] = {}
        for component, names in self.parameters.items():
            modules = {name for each in names for name in (each, _module_of(each))}
            for name in modules:
                self._dotted[name] = (Module(component, name),)
                # The official text encoder has its projections without this.
                self._dotted[name.removeprefix(PROJECTION)] = self._dotted[name]
            self._dotted |= _fused(component, modules)
        self._underscored: dict[str, tuple[Module, ...]] = {}
        for name, found in self._dotted.items():
            to_diffusers = TO_DIFFUSERS[found[0].component]
            for form in {name, to_diffusers(name)}:
                self._underscored[form.replace(".", "_")] = found

    def find(self, name: str) -> tuple[Module, ...]:
        """The modules for a name in a file: none, one, or the parts of a fused projection in order.

        Names without dots are treated as underscored.
        """
        name = TRAINERS.sub("", name, count=1) if TRAINERS.match(name) else name
        candidates = _bare(name) if "." in name else _bare_underscored(name)
        for candidate in candidates:
            if candidate in self._dotted:
                return self._dotted[candidate]
            if "." not in candidate and candidate in self._underscored:
                return self._underscored[candidate]
            for translate in TO_PUBLISHED:
                if translate(candidate) in self._dotted:
                    return self._dotted[translate(candidate)]
        return ()

    def parameter(self, module: Module, kind: str) -> str | None:
        """The name of a module's `weight` or `bias`, or of the single parameter that it is."""
        parameters = self.parameters[module.component]
        if f"{module.name}.{kind}" in parameters:
            return f"{module.name}.{kind}"
        return module.name if kind == "weight" and module.name in parameters else None


def unwrapped(name: str) -> Iterator[str]:
    """A dotted name as in the file, then with one wrapper less each time."""
    yield name
    yield from _bare(name)


def _bare(name: str) -> Iterator[str]:
    segments = [segment for segment in name.split(".") if segment not in WRAPPERS]
    yield ".".join(segments)
    while len(segments) > 1 and segments[0] in ROOTS:
        segments = segments[1:]
        yield ".".join(segments)


def _bare_underscored(name: str) -> Iterator[str]:
    name = UNDERSCORED_WRAPPERS.sub("", name)
    yield name
    while root := next((each for each in ROOTS if name.startswith(f"{each}_")), None):
        name = name.removeprefix(f"{root}_")
        yield name


def _module_of(parameter: str) -> str:
    module, _, last = parameter.rpartition(".")
    return module if last in ("weight", "bias") else parameter


def _fused(component: str, modules: set[str]) -> dict[str, tuple[Module, ...]]:
    found: dict[str, tuple[Module, ...]] = {}
    for query in modules:
        parent, _, last = query.rpartition(".")
        if last != "to_q":
            continue
        for aliases, parts in FUSED.items():
            whole = tuple(Module(component, f"{parent}.{part}") for part in parts)
            found |= {f"{parent}.{alias}": whole for alias in aliases}
    return found
