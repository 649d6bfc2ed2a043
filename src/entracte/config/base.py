"""What all settings have in common: flags, and where values come from."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BeforeValidator, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from entracte.errors import RequestError
from entracte.validation import plain, shown_value

from .sources import CONFIG_VARIABLE, PREFIX, EnvironmentSource, TomlSource, set_variables, variable

__all__ = ["CONFIG_VARIABLE", "Flag", "Number", "Settings", "Size", "flag_name", "read_settings"]


SIZE = re.compile(r"^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$")


def _is_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number or a word")
    return value


def _is_size(value: object) -> object:
    if not isinstance(value, str) or SIZE.fullmatch(value) is None:
        raise ValueError(f"must be a size such as 1280x720, not {shown_value(value) or 'this'}")
    return value


# A number, or a word that stands for one, such as 24GiB.
Number = Annotated[int | float | str, BeforeValidator(_is_number)]

# Width and height of a video, as 1280x720.
Size = Annotated[str, BeforeValidator(_is_size)]


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field looks on the command line. `values` names what follows the flag."""

    group: str
    help: str
    values: str = ""


def flag_name(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


class Settings(BaseSettings):
    """The root of all settings.

    table: the table of the TOML file with the keys that are no one else's; None: its top level,
        which all commands share.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")
    table: ClassVar[str | None] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, EnvironmentSource(settings_cls), TomlSource(settings_cls, cls.table)


Told = TypeVar("Told", bound=Settings)


def read_settings(kind: type[Told], flags: dict[str, Any]) -> Told:
    """Combine flags with environment and file; raises RequestError, naming what is wrong."""
    try:
        settings = kind(**flags)
    except ValidationError as error:
        # A value with several findings, such as a list, is told of once.
        found = {finding["loc"][0]: plain(finding) for finding in reversed(error.errors())}
        lines = [f"{_origin(str(name), flags)}: {found[name]}" for name in reversed(found)]
        raise RequestError("\n".join(lines)) from None
    for name, value in settings:
        if _has_nul(value):  # no path has one, and no system takes it
            raise RequestError(f"{_origin(name, flags)}: has a NUL character")
    return settings


def _has_nul(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_nul, value))
    return isinstance(value, str | Path) and "\0" in str(value)


def _origin(name: str, flags: dict[str, Any]) -> str:
    """What a person wrote to give a setting: a flag, a variable, or a key of the file."""
    if name in flags:
        return flag_name(name)
    if variable(name) in set_variables():
        return variable(name)
    return f"{name} in the settings file"
