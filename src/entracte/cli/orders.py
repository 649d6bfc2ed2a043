"""The videos that a command line asks for, each with its settings and where it goes."""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.config.generate import GenerateSettings
from entracte.config.opening import path_strength
from entracte.config.reading import read_settings
from entracte.errors import RequestError
from entracte.request_fields import GuidanceFields, RequestFields, arguments_from

from .flags import (
    condition,
    flags_of,
    given_settings,
    worded_with_flags,
)
from .overwrite import free_name

if TYPE_CHECKING:
    from entracte.request import LoraSpec, Request

# Of one command. More are another command's, or a service's.
MOST_VIDEOS = 1000
MOST_BYTES = 10_000_000

# Outputs that only one video can have.
SINGLE = ("latents_path", "perf_dump_path", "trace_path")


@dataclass(frozen=True, slots=True)
class VideoOrder:
    """One video."""

    settings: GenerateSettings
    request: "Request"
    output: Path


def read_orders(options: argparse.Namespace) -> list[VideoOrder]:
    """What `entracte generate` was asked for; raises RequestError, naming what is wrong.

    Flags win over a line of --prompts, and that over the settings of --like.
    """
    given = given_settings(GenerateSettings, options)
    base = {} if options.like is None else _settings_like(options.like, given)
    settings, requests = [], []
    for where, line in _lines(options.prompts):
        try:
            for seed in _seeds(options, base | line | given):
                each = read_settings(GenerateSettings, base | line | given | seed)
                settings.append(each)
                requests.append(build_request(each))
        except RequestError as error:
            raise RequestError(f"{where}{error}", settings=error.settings) from None
    if len(settings) > MOST_VIDEOS:
        raise RequestError(f"{len(settings):,} videos are asked for; at most {MOST_VIDEOS:,}")
    if len(settings) > 1 and any(settings[0].model_dump()[name] for name in SINGLE):
        raise RequestError("latents, dumps and traces are of one video; ask for one")
    outputs = _outputs([each.output_path for each in settings])
    return [VideoOrder(*each) for each in zip(settings, requests, outputs, strict=True)]


def _lines(path: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of --prompts as settings, and where each is; one of nothing without a file."""
    if path is None:
        yield "", {}
        return
    try:
        text = path.read_bytes()[: MOST_BYTES + 1].decode()
    except OSError as error:
        raise RequestError(f"--prompts: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"--prompts: {path} is not text in UTF-8") from None
    if len(text) > MOST_BYTES:
        raise RequestError(f"--prompts: {path} has more than {MOST_BYTES:,} bytes")
    found = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            found = True
            where = f"{path}, line {number}: "
            json_lines = path.suffix == ".jsonl"
            yield where, _fields(line, where) if json_lines else {"prompt": line.strip()}
    if not found:
        raise RequestError(f"--prompts: {path} has no prompts: one a line, or JSON in a .jsonl")


def _fields(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise RequestError(f'{where}must be a JSON object, such as {{"prompt": "…", "seed": 3}}')
    allowed = [
        name
        for name, flag in flags_of(GenerateSettings).items()
        if flag.group in ("request", "guidance") or name == "output_path"
    ]
    for name in values:
        if name not in allowed:
            raise RequestError(f"{where}{name!r:.60} is not one of {', '.join(allowed)}")
    return values


def _seeds(options: argparse.Namespace, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The seeds of one prompt's videos, as settings."""
    if options.seeds and options.count != 1:
        raise RequestError("--seeds and --count: give one of them")
    if options.seeds:
        return [{"seed": seed} for seed in options.seeds]
    if options.count == 1:
        return [{}]
    seed = read_settings(GenerateSettings, dict(given)).seed
    if seed is None:
        from entracte.versions import DEFAULTS

        seed = next(iter(DEFAULTS.values())).seed
    return [{"seed": seed + number} for number in range(options.count)]


def _outputs(asked: list[Path | None]) -> list[Path]:
    """Where each video goes: if several are to go to one file, they are numbered."""
    taken: set[Path] = set()
    found = []
    for number, path in enumerate(asked, start=1):
        if path is None:
            path = free_name(Path("output.mp4"), taken)
        elif asked.count(path) > 1:
            digits = len(str(len(asked)))
            path = (
                path / f"{number:0{digits}}.mp4"
                if path.is_dir()
                else path.with_stem(f"{path.stem}-{number:0{digits}}")
            )
        taken.add(path)
        found.append(path)
    return found


def _settings_like(video: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a video was made with; raises MediaError and RequestError."""
    from entracte.conditions import KINDS
    from entracte.media.tags import read_settings_of

    found = read_settings_of(video)
    flags = {kind.field: name for name, kind in KINDS.items()} | {"loras": "lora"}
    for name, flag in flags.items():
        entries = found.get(name)
        if isinstance(entries, list) and entries and flag not in given:
            what = ", ".join(str(each.get("name")) for each in entries)
            raise RequestError(f"--like: {video} was made with {what}; give it with --{flag}")
    names = RequestFields.model_fields.keys() | GuidanceFields.model_fields.keys()
    kept = {name: value for name, value in found.items() if name in names}
    replaced = {"size": ("height", "width"), "seconds": ("num_frames",)}
    gone = {name for short, long in replaced.items() if short in given for name in long}
    return {name: value for name, value in kept.items() if name not in gone}


def build_request(settings: GenerateSettings) -> "Request":
    """The request that settings describe; raises RequestError where it is wrong."""
    from entracte.binding import require_possible
    from entracte.conditions import KINDS
    from entracte.request import Request

    if settings.prompt is None:
        raise RequestError("--prompt is missing: say what the video should show")
    if settings.size is not None and (settings.height or settings.width):
        raise RequestError("--size is given beside --height or --width; give one of them")
    if settings.seconds is not None and settings.num_frames is not None:
        raise RequestError("--seconds is given beside --num-frames; give one of them")
    given = arguments_from(dict(settings))
    given["conditions"] = tuple(
        condition(kind, values)
        for name, kind in KINDS.items()
        for values in listed(vars(settings)[name], kind.many)
    )
    given["loras"] = tuple(_lora(values, settings.lora_partial) for values in settings.lora or [])
    given |= {"size": settings.size, "seconds": settings.seconds}
    with worded_with_flags():
        request = Request(**(given | _sides(settings)))
        require_possible(request)
        return request


def listed(values: Any, many: bool) -> list[list[Any]]:
    """What the flag of a kind of condition was given, once or several times."""
    if values is None:
        return []
    return list(values) if many else [values]


def _sides(settings: GenerateSettings) -> dict[str, int]:
    """Height and width that can be rendered, and what is cut from them where they are others."""
    from entracte.recipes import RECIPES

    recipe = RECIPES[settings.pipeline]
    given: dict[str, int] = {}
    for name, side in (("height", settings.height), ("width", settings.width)):
        if side is None or side % recipe.size_multiple == 0:
            continue
        if side % 2:
            raise RequestError(f"{name}: {side} is odd; an H.264 video has even sides")
        given |= {name: recipe.rendered(side), f"output_{name}": side}
    return given


def _lora(values: list[Any], partial: bool) -> "LoraSpec":
    from entracte.request import LoraSpec

    path, strength = path_strength(values, "lora")
    return LoraSpec(path, strength, partial=partial)
