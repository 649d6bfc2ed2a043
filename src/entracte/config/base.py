"""The base of all settings: flags, and where values come from."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import BeforeValidator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from entracte.validation import shown_value

from .sources import PREFIX, EnvironmentSource, TomlSource

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
    """The flag of a field. values: placeholder for what follows the flag."""

    group: str
    help: str
    values: str = ""


def flag_name(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


class Settings(BaseSettings):
    """The root of all settings.

    table: the table of the TOML file with the keys of this command alone; None: its top level,
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
