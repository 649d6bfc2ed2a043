"""A request with everything settled that needs no weight."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.binding import BoundRequest
from entracte.notices import Notice
from entracte.recipes import Phase
from entracte.residency import WeightPhase, WeightSet
from entracte.sampling.denoiser import GuidancePlan
from entracte.sampling.samplers import SAMPLERS
from entracte.sampling.schedules import shifted_sigmas
from entracte.sampling.tokens import VideoGrid

from .conditions import PreparedImage


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a run needs to know.

    prompts: token ids of the prompt, and of the negative prompt where guidance needs it.
    weight_sets: the transformer's, phase by phase. lent: those of other components that are not
        used with their own weights, by name. notices: what its LoRAs have to say.
    """

    request: BoundRequest
    guidance: GuidancePlan
    prompts: list[Tensor]
    images: list[PreparedImage]
    weight_sets: list[WeightSet]
    lent: Mapping[str, WeightSet]
    notices: tuple[Notice, ...] = ()

    def grid(self, phase: Phase) -> VideoGrid:
        """The phase's latent grid."""
        r = self.request
        return VideoGrid.of_pixels(
            r.num_frames, r.height // phase.divisor, r.width // phase.divisor, r.frame_rate
        )

    def sigmas(self, phase: Phase) -> Tensor:
        """The phase's noise levels, [steps + 1] float32."""
        if phase.sigmas is None:
            assert self.request.num_inference_steps is not None
            return shifted_sigmas(self.request.num_inference_steps)
        return torch.tensor(phase.sigmas)

    def evaluations(self, phase: Phase) -> int:
        """How often a phase's sampler calls the denoiser: a sweep over the blocks each time."""
        return SAMPLERS[phase.sampler].evaluations(len(self.sigmas(phase)) - 1)

    def forwards(self, phase: Phase) -> int:
        """How many guidance passes a phase makes in all."""
        passes = len(self.guidance.passes()) if phase.guided else 1
        return passes * self.evaluations(phase)

    @property
    def weight_phases(self) -> list[WeightPhase]:
        """What the transformer will be used for."""
        return [
            WeightPhase(weights, self.evaluations(phase))
            for weights, phase in zip(self.weight_sets, self.request.recipe.phases, strict=True)
        ]

    def phase_work(self, phase: Phase) -> float:
        """What a phase costs: passes times tokens."""
        return self.forwards(phase) * self.grid(phase).tokens

    def step_work(self, phase: Phase) -> float:
        """What one step of a phase costs."""
        return self.phase_work(phase) / (len(self.sigmas(phase)) - 1)

    @property
    def work(self) -> float:
        """What all phases cost."""
        return sum(map(self.phase_work, self.request.recipe.phases))
