"""A request, resolved for a model: what can be counted of it, and what it is computed with."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from entracte.binding import BoundRequest
from entracte.checkpoints.lora import WHOLE, ReferenceScale
from entracte.notices import Notice
from entracte.recipes import Phase
from entracte.residency import WeightPhase, WeightSet
from entracte.sampling.denoiser import GuidancePlan
from entracte.sampling.tokens import VideoGrid

from .conditions import PreparedImage
from .given import NOTHING_GIVEN, GivenMedia
from .references import Reference


@dataclass(frozen=True, slots=True)
class RequestWeights:
    """The weights that a request is computed with.

    transformer: of each phase. lent: of other components that LoRAs change, by name. notices: about
    its LoRAs. reference: of its IC-LoRAs.
    """

    transformer: tuple[WeightSet, ...]
    lent: Mapping[str, WeightSet]
    notices: tuple[Notice, ...]
    reference: ReferenceScale = WHOLE


@dataclass(frozen=True, slots=True)
class ResolvedPhase:
    """One phase's loop over noise levels.

    grid: of the latents. sigmas: the noise levels, steps + 1 of them, exact in float32.
    evaluations: how often the sampler calls the denoiser, each time one sweep over the blocks.
    rows_at_once: how many guidance passes share a batch.
    references: the control videos, whose tokens follow those of images.
    """

    phase: Phase
    grid: VideoGrid
    sigmas: tuple[float, ...]
    guidance: GuidancePlan
    evaluations: int
    rows_at_once: int
    weights: WeightSet
    references: tuple[Reference, ...] = ()

    @property
    def reference_tokens(self) -> int:
        return sum(each.grid.tokens for each in self.references)

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def contexts(self) -> int:
        """How many prompts it attends to: the prompt, and the negative one if guidance needs it.

        The negative prompt is the second of them.
        """
        return 2 if "unconditioned" in self.guidance.passes() else 1

    @property
    def forwards(self) -> int:
        """How many guidance passes it makes in all."""
        return len(self.guidance.passes()) * self.evaluations

    @property
    def work(self) -> float:
        """What it costs: passes times tokens."""
        return self.forwards * (self.grid.tokens + self.reference_tokens)

    @property
    def step_work(self) -> float:
        """What one step costs."""
        return self.work / self.steps


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A request on a model of a version and depth, as far as it can be counted. It has no tensors.

    request: every value is settled, the blocks that guidance skips among them.
    layers: of the transformer.
    """

    request: BoundRequest
    layers: int
    phases: tuple[ResolvedPhase, ...]
    weights: RequestWeights

    @property
    def prompts(self) -> int:
        """How many prompts are encoded."""
        return max(phase.contexts for phase in self.phases)

    @property
    def appended_images(self) -> tuple[int, ...]:
        """The frames of the images whose tokens are appended to the video's, in order."""
        every = self.request.recipe.appends_first_image
        return tuple(image.frame for image in self.request.images if every or image.frame > 0)

    def appended_tokens(self, phase: ResolvedPhase) -> int:
        """How many tokens follow the video's own in a phase."""
        return len(self.appended_images) * phase.grid.frame_tokens + phase.reference_tokens

    @property
    def weight_phases(self) -> list[WeightPhase]:
        """What the transformer will be used for."""
        return [WeightPhase(phase.weights, phase.evaluations) for phase in self.phases]

    @property
    def work(self) -> float:
        """What all phases cost."""
        return sum(phase.work for phase in self.phases)


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A resolved request, and what is computed with.

    prompts: the token ids of every prompt, [tokens] int64.
    """

    resolved: ResolvedRequest
    prompts: tuple[Tensor, ...]
    images: tuple[PreparedImage, ...]
    given: GivenMedia = NOTHING_GIVEN
