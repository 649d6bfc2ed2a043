"""Command-line flags from the fields of the settings."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic.fields import FieldInfo

from entracte.config.base import Flag, Settings, flag_name
from entracte.errors import RequestError

GROUPS = {
    "model": "model files (explicit paths override the contents of --model)",
    "residency": "where weights live (docs/reference/modes.md); sizes such as 24GiB or 24GB",
    "request": "the video",
    "guidance": "guidance (defaults: the pipeline's)",
    "output": "output",
    "service": "the service",
    "limits": "limits for clients",
    "retention": "retention",
    "network": "network access (all off by default)",
}

# Flags that may be repeated: each adds a list, or extends the list.
REPEATED = ("image", "lora")
EXTENDED = ("place",)


def add_settings(parser: argparse.ArgumentParser, kind: type[Settings]) -> None:
    """Add a flag for every setting. Flags that are not given are absent from the result."""
    flags = {
        name: next(extra for extra in field.metadata if isinstance(extra, Flag))
        for name, field in kind.model_fields.items()
    }
    used = {flag.group for flag in flags.values()}
    groups = {
        name: parser.add_argument_group(title) for name, title in GROUPS.items() if name in used
    }
    for name, flag in flags.items():
        help_text = flag.help + _default_words(kind.model_fields[name], flag)
        kinds: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": help_text}
        if not flag.values:
            kinds["action"] = argparse.BooleanOptionalAction
        else:
            kinds["metavar"] = flag.values
            if " " in flag.values or flag.values.endswith("…"):
                kinds["nargs"] = "+"
            if name in REPEATED:
                kinds["action"] = "append"
            if name in EXTENDED:
                kinds["action"] = "extend"
        groups[flag.group].add_argument(flag_name(name), **kinds)


def _default_words(field: FieldInfo, flag: Flag) -> str:
    """The default of a flag, if it fits in a word or two."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None or default is False or default == () or "default" in flag.help:
        return ""
    words = " ".join(default) if isinstance(default, tuple) else str(default)
    return f" (default: {'yes' if default is True else words})"


def given_settings(kind: type[Settings], options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags."""
    names = kind.model_fields.keys()
    return {name: value for name, value in vars(options).items() if name in names}


# Fields of a request whose flags have other names.
FLAGS_OF_FIELDS = {
    "images": "--image",
    "loras": "--lora",
    "video_guidance": "--video-… guidance",
    "audio_guidance": "--audio-… guidance",
}


@contextmanager
def worded_with_flags() -> Iterator[None]:
    """Have a RequestError name flags instead of a request's fields."""
    try:
        yield
    except RequestError as error:
        lines = map(_with_flag, str(error).splitlines())
        raise RequestError("\n".join(lines), settings=error.settings) from None


def _with_flag(line: str) -> str:
    """`num_frames: 10 is not …` as `--num-frames: 10 is not …`."""
    field, colon, words = line.partition(": ")
    name = field.partition(".")[0]
    if not colon or not name.isidentifier():
        return line
    return f"{FLAGS_OF_FIELDS.get(name) or flag_name(name)}: {words}"
