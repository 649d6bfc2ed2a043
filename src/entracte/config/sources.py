"""The sources of settings besides flags: the environment and a TOML file."""

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import platformdirs
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from entracte.errors import RequestError
from entracte.validation import shown_value

PREFIX = "ENTRACTE_"
CONFIG_VARIABLE = "ENTRACTE_CONFIG"

# A settings file is a page of text; a larger file is something else.
MAX_TOML_BYTES = 1_000_000


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def set_variables() -> Iterator[str]:
    """The `ENTRACTE_` variables that are set; case does not matter."""
    return (name.upper() for name in os.environ if name.upper().startswith(PREFIX))


class EnvironmentSource(EnvSettingsSource):
    """`ENTRACTE_…`; lists are JSON."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ARG002
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise RequestError(
                f'{variable(field_name)}: must be a list in JSON, such as ["one", "two"]'
                + (f", not {shown}" if (shown := shown_value(value)) else "")
            ) from None


class TomlSource(PydanticBaseSettingsSource):
    """The TOML file.

    table: the table with the keys of one command alone; None: only the top level, which all
        commands share.
    """

    def __init__(self, settings_cls: type[BaseSettings], table: str | None) -> None:
        super().__init__(settings_cls)
        self._table = table

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # the whole file is read at once

    def __call__(self) -> dict[str, Any]:
        values = read_toml()
        shared = {name: value for name, value in values.items() if not isinstance(value, dict)}
        return shared if self._table is None else shared | values.get(self._table, {})


def toml_path() -> Path:
    """`ENTRACTE_CONFIG`, or `config.toml` in the user's configuration folder."""
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else platformdirs.user_config_path("entracte") / "config.toml"


def read_toml() -> dict[str, Any]:
    """The file's content; empty if there is none and none was named. Raises RequestError."""
    path = toml_path()
    if not os.environ.get(CONFIG_VARIABLE) and not path.is_file():
        return {}
    return _read_toml(path)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` for something close to a known name, else nothing."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ""


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TOML_BYTES + 1)
    except OSError as error:
        raise RequestError(f"cannot read the settings file {path}: {error.strerror}") from None
    if len(data) > MAX_TOML_BYTES:
        raise RequestError(f"the settings file {path} is larger than {MAX_TOML_BYTES:,} bytes")
    try:
        return tomllib.loads(data.decode())
    except RecursionError:
        raise RequestError(f"the settings file {path} is nested too deeply") from None
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise RequestError(f"the settings file {path} is not TOML: {error}") from None
