"""What all settings have in common: flags, and where values come from."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import platformdirs
from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from entracte.errors import RequestError

CONFIG_VARIABLE = "ENTRACTE_CONFIG"

Number = int | float | str


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field looks on the command line. `values` names what follows the flag."""

    group: str
    help: str
    values: str = ""


class Settings(BaseSettings):
    """The root of all settings.

    table: the table of the TOML file with the keys that are no one else's; None: its top level,
        which all commands share.
    """

    model_config = SettingsConfigDict(env_prefix="ENTRACTE_", extra="ignore")
    table: ClassVar[str | None] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlSource(settings_cls, cls.table)


class TomlSource(PydanticBaseSettingsSource):
    """The TOML file: `ENTRACTE_CONFIG`, or `config.toml` in the user's configuration folder."""

    def __init__(self, settings_cls: type[BaseSettings], table: str | None) -> None:
        super().__init__(settings_cls)
        self._table = table

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # the whole file is read at once

    def __call__(self) -> dict[str, Any]:
        from entracte.settings.known import SHARED, TABLES

        named = os.environ.get(CONFIG_VARIABLE)
        path = Path(named) if named else platformdirs.user_config_path("entracte") / "config.toml"
        if not named and not path.is_file():
            return {}
        values = _read_toml(path)
        tables = {name: values.pop(name, {}) for name in TABLES}
        unknown = values.keys() - SHARED
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise RequestError(f"the settings file {path}: {name} is a table, [{name}]")
            unknown |= {f"{name}.{key}" for key in table.keys() - TABLES[name]}
        if unknown:
            raise RequestError(
                f"the settings file {path} has unknown keys: {', '.join(sorted(unknown))}"
            )
        return values if self._table is None else values | tables[self._table]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise RequestError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the settings file {path} is no TOML: {error}") from None


Told = TypeVar("Told", bound=Settings)


def read_settings(kind: type[Told], flags: dict[str, Any]) -> Told:
    """Combine flags with environment and file; raises RequestError, naming what is wrong."""
    try:
        return kind(**flags)
    except ValidationError as error:
        from entracte.request import describe

        raise RequestError(describe(error)) from None
