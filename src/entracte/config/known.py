"""Which settings there are: the TOML file may have no other keys, nor the environment others."""

from collections.abc import Mapping
from types import MappingProxyType

from .generate import GenerateSettings
from .model import ModelSettings
from .serve import ServeSettings

SHARED = frozenset(GenerateSettings.model_fields)

TABLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {"serve": frozenset(ServeSettings.model_fields.keys() - ModelSettings.model_fields.keys())}
)

NAMES = SHARED.union(*TABLES.values())
