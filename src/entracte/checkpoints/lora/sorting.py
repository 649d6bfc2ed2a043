"""Sorts the keys of a LoRA file, each by module or as not applicable."""

from collections.abc import Iterable
from dataclasses import dataclass

from entracte.errors import LoraError

from ..adapter_keys import of_adapter, split_key
from ..sources import Located, TensorFile
from .changes import Group
from .names import TEXT_ENCODER, Names

NO_MODULE = "keys of modules that the model does not have"

# How many of a file's keys a message names.
SHOWN = 3


@dataclass(frozen=True, slots=True)
class SortedKeys:
    """groups: what can be applied. text_encoder: keys for a text encoder, which is not adapted
    here.
    others: what cannot be applied, by kind.
    """

    groups: tuple[Group, ...]
    text_encoder: tuple[str, ...]
    others: dict[str, list[str]]

    @property
    def left_out(self) -> tuple[str, ...]:
        """The keys of all others."""
        return tuple(key for keys in self.others.values() for key in keys)

    def complaint(self) -> str:
        """What cannot be applied, in words."""
        count = len(self.left_out)
        total = count + len(self.text_encoder) + sum(len(group.parts) for group in self.groups)
        kinds = "; ".join(f"{kind}: {first_of(keys)}" for kind, keys in self.others.items())
        return f"{count:,} of its {total:,} keys cannot be applied: {kinds}"


def is_lora(file: TensorFile) -> bool:
    """Whether a file holds an adapter, supported or not."""
    return of_adapter(file.tensors)


def sort_keys(file: TensorFile, names: Names) -> SortedKeys:
    """Sort a file's keys by name alone; no tensor is read.

    A module with any key that cannot be applied is not applied at all. Raises LoraError if the file
    is not a LoRA, has several adapters, or several keys for one thing.
    """
    if not is_lora(file):
        count = len(file.tensors)
        raise LoraError(file.path, f"it is not a LoRA: none of its {count:,} keys is of one")
    parts: dict[str, dict[str, Located]] = {}
    adapters: set[str | None] = set()
    text_encoder: list[str] = []
    others: dict[str, list[str]] = {}
    spoiled: dict[str, str] = {}
    for key in file.tensors:
        if TEXT_ENCODER.match(key):
            text_encoder.append(key)
            continue
        found = split_key(key)
        if isinstance(found, str):
            others.setdefault(found, []).append(key)
            spoiled |= dict.fromkeys(_beginnings(key), found)
            continue
        of_module = parts.setdefault(found.module, {})
        if found.part in of_module:
            raise LoraError(file.path, f"{of_module[found.part].key} and {key} are the same thing")
        of_module[found.part] = Located(file, key)
        if found.part in ("down", "up"):
            adapters.add(found.adapter)
    if len(adapters) > 1:
        named = ", ".join(sorted(name or "one without a name" for name in adapters))
        raise LoraError(file.path, f"it holds several adapters ({named}); save one to a file")
    groups = []
    for module, of_module in parts.items():
        modules = names.find(module)
        if modules and module not in spoiled:
            groups.append(Group(module, modules, of_module))
        else:
            kind = spoiled.get(module, NO_MODULE)
            others.setdefault(kind, []).extend(located.key for located in of_module.values())
    return SortedKeys(tuple(groups), tuple(text_encoder), others)


def _beginnings(key: str) -> list[str]:
    """Possible names of the key's module."""
    segments = key.split(".")
    return [".".join(segments[:count]) for count in range(1, len(segments))]


def first_of(keys: Iterable[str]) -> str:
    """The first few keys, and how many more there are."""
    keys = list(keys)
    more = len(keys) - SHOWN
    return ", ".join(keys[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
