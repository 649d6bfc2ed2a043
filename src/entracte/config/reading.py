"""Reads settings from flags, the environment and the TOML file; unknown names are errors."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from entracte.errors import RequestError
from entracte.validation import plain

from .base import Settings, flag_name
from .generate import GenerateSettings
from .model import ModelSettings
from .serve import ServeSettings
from .sources import CONFIG_VARIABLE, did_you_mean, read_toml, set_variables, toml_path, variable

# Variables of ours that are not settings: the settings file, the folder of measured rates, and
# where the documents' examples keep a client's key.
OTHERS = (CONFIG_VARIABLE, "ENTRACTE_CACHE_DIR", "ENTRACTE_KEY")

# Keys at the top level of the file, which all commands share, and those of its tables.
SHARED = frozenset(GenerateSettings.model_fields)
TABLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {"serve": frozenset(ServeSettings.model_fields.keys() - ModelSettings.model_fields.keys())}
)

Told = TypeVar("Told", bound=Settings)


def read_settings(kind: type[Told], flags: dict[str, Any]) -> Told:
    """Combine flags, environment and file; raises RequestError, naming what is wrong."""
    _check_environment()
    _check_file()
    try:
        settings = kind(**flags)
    except ValidationError as error:
        # A value with several findings, such as a list, is reported once.
        found = {finding["loc"][0]: plain(finding) for finding in reversed(error.errors())}
        lines = [f"{_origin(str(name), flags)}: {found[name]}" for name in reversed(found)]
        raise RequestError("\n".join(lines)) from None
    for name, value in settings:
        if _has_nul(value):  # no path has one, and no system takes it
            raise RequestError(f"{_origin(name, flags)}: has a NUL character")
    return settings


def _check_environment() -> None:
    """Raise RequestError for an unknown `ENTRACTE_` variable."""
    known = {*map(variable, SHARED.union(*TABLES.values())), *OTHERS}
    for name in sorted(set_variables()):
        if name not in known:
            raise RequestError(
                f"the environment has {name}, which is not a setting{did_you_mean(name, known)}"
            )


def _check_file() -> None:
    """Raise RequestError for unknown keys."""
    values = read_toml()
    known = {*SHARED, *(f"{name}.{key}" for name in TABLES for key in TABLES[name])}
    unknown = values.keys() - SHARED - TABLES.keys()
    for name in TABLES.keys() & values.keys():
        table = values[name]
        if not isinstance(table, dict):
            raise RequestError(f"the settings file {toml_path()}: {name} is a table, [{name}]")
        unknown |= {f"{name}.{key}" for key in table.keys() - TABLES[name]}
    if unknown:
        raise RequestError(
            f"the settings file {toml_path()} has unknown keys: {', '.join(sorted(unknown))}"
            + did_you_mean(min(unknown), known)
        )


def _has_nul(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_nul, value))
    return isinstance(value, str | Path) and "\0" in str(value)


def _origin(name: str, flags: dict[str, Any]) -> str:
    """Where a setting was given: the flag, variable or key of the file."""
    if name in flags:
        return flag_name(name)
    if variable(name) in set_variables():
        return variable(name)
    return f"{name} in the settings file"
