"""Which keys the TOML file may have."""

from collections.abc import Mapping
from types import MappingProxyType

from .generate import GenerateSettings
from .model import ModelSettings
from .serve import ServeSettings

SHARED = frozenset(GenerateSettings.model_fields)

TABLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {"serve": frozenset(ServeSettings.model_fields.keys() - ModelSettings.model_fields.keys())}
)
