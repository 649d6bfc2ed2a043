"""What `entracte plan` plans for: the machine, the model, the video, and what is settled."""

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from entracte.config.opening import names_of
from entracte.config.residency import parse_places, parse_size
from entracte.errors import RequestError, ResidencyError
from entracte.imports import quick_imports

from .flags import worded_with_flags

if TYPE_CHECKING:
    from entracte.machine.hardware import Hardware
    from entracte.planner.model_profile import ModelFigures
    from entracte.planner.workload import Workload
    from entracte.residency import Residency

PUBLISHED = "ltx-2.3"
HOST_OF_A_CARD = "64GiB"
MOST_GPUS = 16
RATES = ("h2d", "disk")
VIDEO_FIELDS = (
    "pipeline",
    "height",
    "width",
    "num_frames",
    "frame_rate",
    "num_inference_steps",
    "guidance_batch",
)


def build_wanted(options: argparse.Namespace) -> "Residency":
    """What is said of the plan. Of this machine, memory that is named is a budget."""
    with quick_imports():
        from entracte.residency import Residency

    budgets = {}
    if options.gpu is None:
        names = ("device_memory", "host_memory", "pinned_memory")
        budgets = {name: parse_size(name, vars(options)[name]) for name in names}
    return Residency(
        mode=options.mode,
        snapshot_policy=options.snapshot_policy,
        resident_blocks=options.resident_blocks,
        merged_blocks=options.merged_blocks,
        places=parse_places(options.place or []),
        **budgets,
    )


def check_wanted(wanted: "Residency", model: "ModelFigures", devices: int) -> None:
    """Raise ResidencyError where the wishes contradict the model, as the device manager does."""
    from entracte.planner.model_planner import named
    from entracte.planner.model_profile import TRANSFORMER
    from entracte.residency import BASE, RankShare, Sizes, WeightPhase, make_plan, resolve_policy

    for name in wanted.places:
        if name not in model.units:
            known = ", ".join(sorted(model.units))
            raise ResidencyError(f"no component {name!r} to place; there are {known}")
    for name, units in model.units.items():
        policy = resolve_policy(name, name == TRANSFORMER, named(wanted))
        phases, share = (WeightPhase(BASE),), RankShare(0, devices)
        make_plan(name, Sizes(units, {}), phases, policy, unified=False, share=share)


def find_machine(options: argparse.Namespace) -> "Hardware":
    """The card that is named, or this machine."""
    words = {name: vars(options)[name] for name in RATES}
    rates = {name: _rate(name, word) for name, word in words.items() if word is not None}
    if options.gpu is None:
        return this_machine(options.model, rates, options.devices or ["auto"])
    if options.devices:
        raise RequestError("--devices are this machine's: with --gpu, say how many, as in x2")

    from entracte.machine.cards import card

    host = parse_size("host_memory", options.host_memory or HOST_OF_A_CARD)
    assert host is not None  # it has a default
    given: dict[str, float] = dict(rates)
    for name in ("device_memory", "pinned_memory"):
        size = parse_size(name, vars(options)[name])
        if size is not None:
            given[name] = size
    name, devices = parse_gpus(options.gpu)
    return card(name, host, devices, **given)


def check_precision(precision: str, hardware: "Hardware") -> None:
    """Raise RequestError for a known card that cannot multiply in float8."""
    from entracte.machine.cards import WITHOUT_FLOAT8

    if precision == "fp8" and hardware.name in WITHOUT_FLOAT8:
        raise RequestError(
            f"--precision fp8 needs products in float8, which {hardware.name} does not have: it "
            "takes compute capability 8.9 or more (Ada, Hopper, Blackwell)"
        )


def parse_gpus(words: list[str]) -> tuple[str, int]:
    """`h100-80gb x2` to a card's name, which may have several words, and how many there are."""
    *name, last = words
    number = re.fullmatch(r"[x×](\d+)", last.lower())
    if number is None or not name:
        return " ".join(words), 1
    devices = int(number[1])
    if not 1 <= devices <= MOST_GPUS:
        raise RequestError(f"--gpu takes x1 to x{MOST_GPUS} of a card, not {last}")
    return " ".join(name), devices


def heed_memory(hardware: "Hardware", wanted: "Residency") -> "tuple[Hardware, Residency]":
    """Memory that is named is a budget; what is more than this machine has, as if it were there."""
    device, host = wanted.device_memory, wanted.host_memory
    if hardware.unified:
        said = [each for each in (device, host) if each is not None]
        device = host = min(said, default=None)
    if device is not None and device > hardware.device_memory:
        hardware, device = replace(hardware, device_memory=device), None
    if host is not None and host > hardware.host_memory:
        hardware, host = replace(hardware, host_memory=host), None
    return hardware, replace(wanted, device_memory=device, host_memory=host)


def _rate(name: str, word: str) -> float:
    """`25GB/s` to bytes a second; raises RequestError."""
    try:
        found = parse_size(name, word.removesuffix("/s"))
    except RequestError:
        found = None
    if not found:
        raise RequestError(f"--{name} takes bytes a second such as 25GB/s, not {word!r}")
    return float(found)


def this_machine(model: str, rates: dict[str, float], devices: list[str]) -> "Hardware":
    import torch

    from entracte.machine import probe
    from entracte.machine.hardware import Origin
    from entracte.machine.peers import with_devices
    from entracte.machine.torch_device import pick_device, pick_devices
    from entracte.residency import open_backend

    folder = Path(model) if Path(model).is_dir() else None
    names = names_of(devices)
    picked = pick_devices(names) if len(names) > 1 else [pick_device(names[0])]
    backend = open_backend(picked[0])
    try:
        found = with_devices(probe(backend, torch.bfloat16, folder=folder), len(picked))
    finally:
        backend.close()
    given: dict[str, Origin] = dict.fromkeys(rates, "given")
    return replace(found, rates=replace(found.rates, **rates), origins={**found.origins, **given})


def find_model(options: argparse.Namespace) -> "ModelFigures":
    import torch

    from entracte.checkpoints.model_files import ModelPaths, open_model
    from entracte.checkpoints.named import is_repository
    from entracte.planner.model_profile import PUBLISHED as PUBLISHED_FIGURES
    from entracte.planner.model_profile import figures_of, in_float8, published, with_weights
    from entracte.recipes import prefers_distilled

    asked = {"transformer": options.weights, "text_encoder": options.text_weights}
    given = {component: weights for component, weights in asked.items() if weights is not None}
    known = options.model in PUBLISHED_FIGURES and (
        "/" not in options.model or is_repository(options.model)
    )
    if known:  # what is in the hub's cache would say the same
        found = published(options.model)
        for component, weights in given.items():
            found = with_weights(found, component, weights)
        return in_float8(found, options.weights) if options.precision == "fp8" else found
    if given:
        raise RequestError(
            f"--weights and --text-weights are for {PUBLISHED} and other published models, planned "
            "without files; "
            f"those of {options.model} say themselves how its weights are stored"
        )
    distilled = prefers_distilled(options.pipeline)
    source = open_model(options.model, ModelPaths(), distilled, options.precision)
    return figures_of(source, torch.bfloat16)


def build_workload(options: argparse.Namespace, model: "ModelFigures", on_gpu: bool) -> "Workload":
    from entracte.planner.workload import Workload

    given = {name: vars(options)[name] for name in VIDEO_FIELDS}
    given["steps"] = given.pop("num_inference_steps")
    given |= {"size": options.size, "seconds": options.seconds}
    with worded_with_flags():
        return Workload.of_sizes(
            layers=model.transformer.layers,
            defaults=model.version.defaults,
            images=options.images,
            on_gpu=on_gpu,
            **{name: value for name, value in given.items() if value is not None},
        )
