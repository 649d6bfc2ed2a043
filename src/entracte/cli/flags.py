"""Command-line flags from the fields of the settings."""

import argparse
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from entracte.conditions import KINDS, values_of
from entracte.config.base import Flag, Settings, flag_name
from entracte.config.model import ModelSettings
from entracte.errors import RequestError
from entracte.request_fields import (
    GuidanceFields,
    RequestFields,
    offer_of,
    range_words,
    value_schemas,
    values_from,
)
from entracte.validation import plain

if TYPE_CHECKING:
    from entracte.conditions import Condition

GROUPS = {
    "request": "the video; other sizes than multiples of 64 are cropped from the next",
    "output": "output",
    "model": "model files (explicit paths override the contents of --model)",
    "guidance": "guidance",
    "residency": "where weights live (docs/reference/modes.md); sizes such as 24GiB or 24GB",
    "service": "the service",
    "limits": "limits for clients",
    "retention": "retention",
    "network": "network access (all off by default)",
}

# Characters of a default that help does not repeat.
LONG_DEFAULT = 30

# Flags that may be repeated: each adds a list, or extends the list.
REPEATED = ("image", "control", "lora")
EXTENDED = ("place",)


def add_settings(
    parser: argparse.ArgumentParser, kind: type[Settings], but: Collection[str] = ()
) -> dict[str, argparse._ArgumentGroup]:
    """Add a flag for every setting; returns their groups.

    Flags that are not given are absent from the result. but: settings without a flag here.
    """
    flags = {name: flag for name, flag in flags_of(kind).items() if name not in but}
    used = {flag.group for flag in flags.values()}
    groups = {
        name: parser.add_argument_group(title) for name, title in GROUPS.items() if name in used
    }
    order = list(GROUPS)
    for name, flag in sorted(flags.items(), key=lambda each: order.index(each[1].group)):
        arguments = _arguments(name, flag, kind.model_fields[name])
        groups[flag.group].add_argument(flag_name(name), default=argparse.SUPPRESS, **arguments)
    return groups


def _arguments(name: str, flag: Flag, field: FieldInfo) -> dict[str, Any]:
    """What argparse is told of a setting's flag."""
    arguments: dict[str, Any] = {
        "dest": name,
        "help": flag.help + _default_words(name, field, flag),
    }
    if not flag.values:
        arguments["action"] = argparse.BooleanOptionalAction
        return arguments
    arguments["metavar"] = flag.values
    if " " in flag.values or flag.values.endswith("…"):
        arguments["nargs"] = "+"
    if name in REPEATED:
        arguments["action"] = "append"
    if name in EXTENDED:
        arguments["action"] = "extend"
    return arguments


def flags_of(kind: type[Settings]) -> dict[str, Flag]:
    """The flag of every setting: its own, or that of a request's field."""
    schemas = value_schemas(RequestFields) | value_schemas(GuidanceFields)
    flags = {}
    for name, field in kind.model_fields.items():
        offer = offer_of(field)
        if offer is None:
            flags[name] = next(extra for extra in field.metadata if isinstance(extra, Flag))
        else:
            flags[name] = Flag(offer.group, _help(field, schemas[name]), offer.values)
    return flags


def add_model_settings(
    group: argparse._ArgumentGroup,
    names: Iterable[str],
    words: str | None = None,
    kind: type[Settings] = ModelSettings,
) -> None:
    """Add flags of settings, with their defaults, for a command without settings.

    words: what they mean to this command, if not what they mean to others.
    """
    flags = flags_of(kind)
    for name in names:
        field = kind.model_fields[name]
        flag = flags[name] if words is None else replace(flags[name], help=words)
        arguments = _arguments(name, flag, field)
        if "nargs" not in arguments:
            annotated: Any = Annotated[(field.annotation, *field.metadata)]
            arguments["type"] = partial(_parse_setting, TypeAdapter(annotated))
        group.add_argument(flag_name(name), default=field.default, **arguments)


def _parse_setting(kind: TypeAdapter[Any], word: str) -> Any:
    """A word as the value of a setting."""
    try:
        return kind.validate_python(word)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(plain(error.errors()[0])) from None


def add_fields(group: argparse._ArgumentGroup, names: Iterable[str]) -> None:
    """Add flags of a request's fields for a command without settings; None if not given."""
    schemas = value_schemas(RequestFields)
    for name in names:
        field = RequestFields.model_fields[name]
        offer = offer_of(field)
        assert offer is not None  # every field has one
        group.add_argument(
            flag_name(name),
            type=partial(_parse, name),
            metavar=offer.values,
            help=_help(field, schemas[name]),
        )


def _parse(name: str, word: str) -> Any:
    """A word as the value of a request's field."""
    try:
        return RequestFields.model_validate({name: word}).model_dump(include={name})[name]
    except ValidationError as error:
        raise argparse.ArgumentTypeError(plain(error.errors()[0])) from None


def _help(field: FieldInfo, schema: Mapping[str, Any]) -> str:
    words = range_words(schema)
    return _in_a_line(field.description or "") + (f" ({words})" if words else "")


def _in_a_line(sentence: str) -> str:
    """A sentence as a flag's help is written."""
    return sentence[:1].lower() + sentence[1:].removesuffix(".")


@cache
def usual_values() -> Mapping[str, Any]:
    """What a request leaves open, in the usual pipeline, by the names of settings."""
    from entracte.binding import bind
    from entracte.request import Request
    from entracte.versions import DEFAULTS

    bound = bind(Request("any"), DEFAULTS["2.3"])
    shown = bound.model_dump(include=RequestFields.model_fields.keys() - {"prompt"})
    shown |= values_from(bound.video_guidance, bound.audio_guidance)
    return {name: value for name, value in shown.items() if len(str(value)) < LONG_DEFAULT}


def _default_words(name: str, field: FieldInfo, flag: Flag) -> str:
    """The default of a flag, if it fits in a word or two."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is None and offer_of(field) is not None:
        default = usual_values().get(name)
    if default is None or default is False or default == () or "default" in flag.help:
        return ""
    words = " ".join(map(str, default)) if isinstance(default, tuple) else f"{default}"
    words = f"{default:g}" if isinstance(default, float) else words
    return f" (default: {'yes' if default is True else words})"


def given_settings(kind: type[Settings], options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags."""
    names = kind.model_fields.keys()
    return {name: value for name, value in vars(options).items() if name in names}


def condition(kind: "type[Condition]", values: list[Any]) -> "Condition":
    """What the flag of a kind of condition was given; raises RequestError."""
    flag, names = f"--{kind.kind}", kind.positional
    least = sum(kind.model_fields[name].is_required() for name in names)
    if not least <= len(values) <= len(names):
        raise RequestError(f"{flag} takes {values_of(kind)}; it was given {len(values)} values")
    try:
        return kind(*values)
    except RequestError as error:
        raise RequestError(f"{flag} {values[0]}: {error}") from None


# Fields of a request whose flags have other names.
FLAGS_OF_FIELDS = {
    **{kind.field: f"--{kind.kind}" for kind in KINDS.values()},
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
