"""From the tensors of one module in a LoRA file to changes of parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isclose, isfinite

import torch

from entracte.errors import LoraError
from entracte.residency import Change, Dora, Factors, Full, Hadamard, Kronecker

from ..sources import Located
from .config import LoraSettings
from .names import Module, unwrapped
from .parts import TensorSlice

HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
KRONECKER = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
# The kinds of change of a weight: their names in messages, and their parts.
KINDS: Mapping[str, tuple[str, ...]] = {
    "LoRA": ("down", "up"),
    "LoHa": HADAMARD,
    "LoKr": KRONECKER,
    "full difference": ("diff",),
}


@dataclass(frozen=True, slots=True)
class Group:
    """A module's tensors in a file, by part.

    name: the module's in the file. modules: ours; several for a fused projection, in the order of
    its rows.
    """

    name: str
    modules: tuple[Module, ...]
    parts: Mapping[str, Located]

    @property
    def kinds(self) -> list[str]:
        """The kinds of its changes of a weight, and "DoRA" if it has a magnitude."""
        found = [kind for kind, parts in KINDS.items() if any(each in self.parts for each in parts)]
        return [*found, "DoRA"] if "magnitude" in self.parts else found

    @property
    def ranks(self) -> set[int]:
        """The ranks of its factors; never raises."""
        inner = ("down", "hada_w1_b", "hada_w2_b", "lokr_w1_b", "lokr_w2_b")
        shapes = [self.parts[part].info.shape for part in inner if part in self.parts]
        return {shape[0] for shape in shapes if shape}

    @property
    def alpha(self) -> float | None:
        """The `.alpha` beside the factors, read from the file. Raises LoraError."""
        located = self.parts.get("alpha")
        if located is None:
            return None
        path = located.file.path
        if located.info.parameters != 1 or located.info.dtype == torch.bool:
            raise LoraError(path, f"{located.key} is {list(located.info.shape)}, not one number")
        alpha = float(located.tensor())
        if not isfinite(alpha):
            raise LoraError(path, f"{located.key} is {alpha}")
        return alpha


@dataclass(frozen=True, slots=True)
class Changed:
    """One parameter's change. parts: its tensors in the file, by their names in the change."""

    component: str
    parameter: str
    change: Change
    parts: Mapping[str, TensorSlice]


class GroupReader:
    """Makes changes of one group.

    parameter: the name of a module's weight or bias, or None. shape: of a parameter.
    """

    def __init__(
        self,
        group: Group,
        settings: LoraSettings | None,
        parameter: Callable[[Module, str], str | None],
        shape: Callable[[str, str], tuple[int, ...]],
    ) -> None:
        self._group = group
        self._path = next(iter(group.parts.values())).file.path
        self._settings = settings
        self._parameter = parameter
        self._shape = shape
        self.overruling: tuple[str, ...] = ()  # keys of alphas that the configuration contradicts

    def read(self) -> list[Changed]:
        """All changes. Raises LoraError for missing, surplus or unfitting parts."""
        group = self._group
        kinds = [kind for kind in group.kinds if kind != "DoRA"]
        if len(kinds) > 1:
            raise self._error(f"is changed twice, by a {' and a '.join(kinds)}")
        found: list[Changed] = []
        if not kinds and {"magnitude", "alpha", "up_bias"} & group.parts.keys():
            raise self._error("has no factors beside " + ", ".join(sorted(self._keys())))
        if "up_bias" in group.parts and kinds != ["LoRA"]:
            raise self._error("has a lora_B.bias and no LoRA")
        if "magnitude" in group.parts and "up_bias" in group.parts:
            raise self._error("has a DoRA magnitude and a lora_B.bias, which exclude each other")
        if kinds == ["full difference"]:
            if {"magnitude", "alpha"} & group.parts.keys():
                raise self._error("has a full difference beside a magnitude or an alpha")
            found += self._whole("diff", "weight", 1.0)
        elif kinds:
            found += self._factored(kinds[0])
        if "diff_bias" in group.parts:
            found += self._whole("diff_bias", "bias", 1.0)
        return found

    def _factored(self, kind: str) -> list[Changed]:
        group = self._group
        parts = {name: self._part(name) for name in KINDS[kind] if name in group.parts}
        for name, part in parts.items():
            if len(part.shape) != 2:
                raise self._error(f"has a {name} of {len(part.shape)} dimensions, not two")
        make = {"LoRA": self._low_rank, "LoHa": self._hadamard, "LoKr": self._kronecker}[kind]
        changed = make(parts)
        if "magnitude" in group.parts:
            changed = self._with_magnitude(changed)
        elif self._settings is not None and self._settings.config.use_dora:
            raise self._error(f"has no magnitude, and {self._settings.where} says use_dora")
        if "up_bias" in group.parts:
            rank = parts["down"].shape[0]
            changed += self._whole("up_bias", "bias", self._scale(rank))
        return changed

    def _low_rank(self, parts: Mapping[str, TensorSlice]) -> list[Changed]:
        self._require(parts, KINDS["LoRA"])
        down, up = parts["down"], parts["up"]
        rank = down.shape[0]
        if up.shape[1] != rank:
            raise self._misfit(f"{list(up.shape)} and {list(down.shape)}")
        scale = self._scale(rank)
        found = []
        for module, first, rows in self._split((up.shape[0], down.shape[1])):
            here = {"down": down, "up": up.rows(first, rows) if rows < up.shape[0] else up}
            change = Factors(here["down"].without_numbers, here["up"].without_numbers, scale)
            found.append(self._changed(module, change, here))
        return found

    def _hadamard(self, parts: Mapping[str, TensorSlice]) -> list[Changed]:
        self._require(parts, HADAMARD)
        a1, b1, a2, b2 = (parts[name] for name in HADAMARD)
        size = (a1.shape[0], b1.shape[1])
        ranks = (a1.shape[1], b1.shape[0]), (a2.shape[1], b2.shape[0])
        if (a2.shape[0], b2.shape[1]) != size or any(one != two for one, two in ranks):
            raise self._misfit(", ".join(str(list(part.shape)) for part in (a1, b1, a2, b2)))
        scale = self._scale(b1.shape[0])
        found = []
        for module, first, rows in self._split(size):
            split = rows < size[0]
            here = {
                "a1": a1.rows(first, rows) if split else a1,
                "b1": b1,
                "a2": a2.rows(first, rows) if split else a2,
                "b2": b2,
            }
            tensors = {name: part.without_numbers for name, part in here.items()}
            found.append(self._changed(module, Hadamard(**tensors, scale=scale), here))
        return found

    def _kronecker(self, parts: Mapping[str, TensorSlice]) -> list[Changed]:
        matrices: list[tuple[TensorSlice, ...]] = []
        rank = None
        for name in ("lokr_w1", "lokr_w2"):
            pair = f"{name}_a", f"{name}_b"
            if name in parts:
                if any(each in parts for each in pair):
                    raise self._error(f"has {name} both whole and in factors")
                matrices.append((parts[name],))
                continue
            self._require(parts, pair)
            a, b = (parts[each] for each in pair)
            if a.shape[1] != b.shape[0]:
                raise self._misfit(f"{list(a.shape)} and {list(b.shape)}")
            matrices.append((a, b))
            rank = b.shape[0]
        first, second = matrices
        size = (
            first[0].shape[0] * second[0].shape[0],
            first[-1].shape[1] * second[-1].shape[1],
        )
        modules = self._split(size)
        if len(modules) > 1:
            raise self._error("is a LoKr of a fused projection, which cannot be split")
        here = {
            f"{name}{number}": part
            for name, matrix in (("first", first), ("second", second))
            for number, part in enumerate(matrix)
        }
        change = Kronecker(
            tuple(part.without_numbers for part in first),
            tuple(part.without_numbers for part in second),
            self._kronecker_scale(rank),
        )
        return [self._changed(modules[0][0], change, here)]

    def _kronecker_scale(self, rank: int | None) -> float:
        """PEFT scales every LoKr by its configuration; LyCORIS not those of whole matrices."""
        if "alpha" not in self._group.parts and self._settings is not None:
            rank = self._settings.rank(self._names()) or rank
            if rank is not None:
                scale = self._settings.scale(self._names(), rank)
                return 1.0 if scale is None else scale
        return 1.0 if rank is None else self._scale(rank)

    def _with_magnitude(self, changed: list[Changed]) -> list[Changed]:
        magnitude = self._part("magnitude")
        rows = sum(each.change.shape[0] for each in changed)
        inputs = changed[0].change.shape[1]
        by_row = magnitude.shape in ((rows,), (rows, 1))
        if not by_row and (magnitude.shape != (1, inputs) or len(changed) > 1):
            raise self._misfit(f"the magnitude's {list(magnitude.shape)}")
        found = []
        first = 0
        for each in changed:
            count = each.change.shape[0]
            here = magnitude.flat() if by_row else magnitude
            if by_row and count < rows:
                here = magnitude.rows(first, count)
            first += count
            inner = each.change
            assert isinstance(inner, Factors | Hadamard | Kronecker)
            change = Dora(inner, here.without_numbers)
            parts = {**each.parts, "magnitude": here}
            found.append(Changed(each.component, each.parameter, change, parts))
        return found

    def _whole(self, name: str, kind: str, scale: float) -> list[Changed]:
        """A full difference of the parameter; a fused one is split by rows."""
        part = self._part(name)
        found = []
        for module, first, rows in self._split(part.shape, kind):
            here = part.rows(first, rows) if rows < part.shape[0] else part
            found.append(
                self._changed(module, Full(here.without_numbers, scale), {"diff": here}, kind)
            )
        return found

    def _split(self, shape: tuple[int, ...], kind: str = "weight") -> list[tuple[Module, int, int]]:
        """The group's modules, each with its first row and number of rows in a change."""
        found = []
        first = 0
        wanted: list[tuple[int, ...]] = []
        for module in self._group.modules:
            parameter = self._parameter(module, kind)
            if parameter is None:
                raise self._error(f"changes a {kind}, which {module.name} does not have")
            wanted.append(self._shape(module.component, parameter))
            rows = wanted[-1][0]
            found.append((module, first, rows))
            first += rows
        if shape[:1] != (first,) or any(each[1:] != shape[1:] for each in wanted):
            parts = " and ".join(str(list(each)) for each in wanted)
            raise self._misfit(f"a change of {list(shape)}", f"{kind} {parts}")
        return found

    def _changed(
        self, module: Module, change: Change, parts: Mapping[str, TensorSlice], kind: str = "weight"
    ) -> Changed:
        parameter = self._parameter(module, kind)
        assert parameter is not None  # `_split` has checked it
        return Changed(module.component, parameter, change, parts)

    def _scale(self, rank: int) -> float:
        """The scale of a change: from the `.alpha` beside its factors, else the configuration, else
        1.
        """
        settings = self._settings
        alpha = self._group.alpha
        if settings is not None:
            declared = settings.rank(self._names())
            if declared is not None and declared != rank:
                raise self._error(f"has rank {rank}, and {declared} by {settings.where}")
        scale = None if settings is None else settings.scale(self._names(), rank)
        if alpha is None:
            return 1.0 if scale is None else scale
        if scale is not None and not isclose(scale, alpha / rank, rel_tol=1e-3):
            self.overruling = (self._group.parts["alpha"].key,)
        return alpha / rank

    def _names(self) -> list[str]:
        """Names of the module that patterns of a configuration may match."""
        return [*reversed(list(unwrapped(self._group.name))), self._group.modules[0].name]

    def _part(self, name: str) -> TensorSlice:
        return TensorSlice.of(self._group.parts[name])

    def _require(self, parts: Mapping[str, TensorSlice], names: tuple[str, ...]) -> None:
        missing = [name for name in names if name not in parts]
        if missing:
            has = ", ".join(sorted(self._keys()))
            raise self._error(f"has {has}, and no {' and no '.join(missing)}")

    def _keys(self) -> list[str]:
        return [
            located.key.removeprefix(f"{self._group.name}.")
            for located in self._group.parts.values()
        ]

    def _misfit(self, has: str, wanted: str = "weight") -> LoraError:
        shapes = wanted
        return self._error(f"does not fit: {has} for the {shapes}. Is it for another model?")

    def _error(self, words: str) -> LoraError:
        return LoraError(self._path, f"{self._group.name} {words}")
