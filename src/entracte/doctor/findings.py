"""Findings about a machine, and the results of checks."""

from dataclasses import dataclass
from typing import Literal

from entracte.machine import Survey
from entracte.machine.cards import Card, card_for_device
from entracte.machine.hardware import Hardware, PeerLink
from entracte.planner.group import GroupGain
from entracte.planner.model_profile import TRANSFORMER, ModelFigures
from entracte.planner.prediction import Prediction

Verdict = Literal["good", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """advice: what it means and what to do; may be empty."""

    name: str
    found: str
    verdict: Verdict
    advice: str = ""


@dataclass(frozen=True, slots=True)
class GroupFindings:
    """The GPUs of a machine by name, their link, and what they gain for a typical video.

    gain: None where no plan fits even all of them.
    """

    names: tuple[str, ...]
    peers: PeerLink
    measured: bool
    gain: GroupGain | None


@dataclass(frozen=True, slots=True)
class Findings:
    """A survey, and the software.

    on_gpu: whether the device is a CUDA device. gpu_seen: whether torch sees any.
    nvidia_driver: the driver's version, if there is one. torch_cuda: what torch was built for.
    triton: why it cannot be imported; None: it can. model_bytes: of the weights to be loaded.
    folder_given: whether a folder was given, to measure its disk. full_size: the planner's plan for
    a usual video of the full-size model, or why none fits. group: of the GPUs, if there are
    several.
    """

    survey: Survey
    on_gpu: bool
    gpu_seen: bool
    nvidia_driver: str | None
    torch_version: str
    torch_cuda: str | None
    triton: str | None
    model_bytes: int
    folder_given: bool
    figures: ModelFigures
    computing_s: float
    full_size: Prediction | str
    group: GroupFindings | None = None

    @property
    def hardware(self) -> Hardware:
        return self.survey.hardware

    @property
    def transformer_bytes(self) -> int:
        return sum(self.figures.units[TRANSFORMER])

    @property
    def card(self) -> Card | None:
        """The device's data sheet, if it is a known card."""
        return card_for_device(self.survey.device.name) if self.on_gpu else None
