"""Recipes: which phases a pipeline has, and how strongly they can be guided. Data only."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Literal

from entracte.stages import PHASES, PhaseStages

# Fixed noise levels: of the distilled checkpoint, and of the second act.
DISTILLED = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0)
REFINEMENT = (0.909375, 0.725, 0.421875, 0.0)

PipelineName = Literal[
    "two-stage",
    "hq",
    "one-stage",
    "keyframes",
    "audio-to-video",
    "retake",
    "retake-guided",
    "extend",
    "ic-lora",
    "ic-lora-one-stage",
    "distilled",
    "distilled-one-stage",
]

# What a pipeline may need; `entracte.conditions` has the kinds.
NeededKind = Literal["sound", "source", "extend", "control"]

# `entracte.sampling.samplers` has the loops.
SamplerName = Literal["euler", "gradient-estimating-euler", "ancestral-euler", "res-2s"]


@dataclass(frozen=True, slots=True)
class Guidance:
    """How strongly one stream is guided.

    cfg: away from the unconditioned prediction; 1 is off.
    stg: away from the prediction with self-attention skipped in `stg_blocks` (None: where the
        version's default says); 0 is off.
    modality: away from the prediction with video and audio isolated; 1 is off.
    rescale: how much of the conditioned prediction's deviation is restored, 0 to 1.
    """

    cfg: float = 1.0
    stg: float = 0.0
    stg_blocks: tuple[int, ...] | None = None
    modality: float = 1.0
    rescale: float = 0.0


@dataclass(frozen=True, slots=True)
class GuidanceOverrides:
    """Changes to a version's default guidance, field by field; None keeps the default."""

    cfg: float | None = None
    stg: float | None = None
    stg_blocks: tuple[int, ...] | None = None
    modality: float | None = None
    rescale: float | None = None

    def applied_to(self, default: Guidance) -> Guidance:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(default, **given)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the pipeline that uses one weight set of the transformer.

    divisor: the video's height and width are divided by it.
    sigmas: fixed noise levels, or None for the shifted schedule of the requested steps.
    guided: whether guidance passes are made.
    distilled: how much of the distilled LoRA's given strength is merged in.
    sampler: the loop over the noise levels.
    shifted_by_size: of the requested steps' schedule, whether it is shifted by the number of video
        tokens, instead of as for 4,096.
    takes_loras: whether a request's LoRAs are merged in.
    sees_control: whether it attends to the control videos, where some are given.
    """

    name: str
    divisor: int
    sigmas: tuple[float, ...] | None
    guided: bool
    distilled: float
    sampler: SamplerName = "euler"
    shifted_by_size: bool = False
    takes_loras: bool = True
    sees_control: bool = False

    @property
    def noise_scale(self) -> float:
        """What its first noise is multiplied by: exactly 1 where a phase begins from noise alone,
        though the first level of a shifted schedule may be a rounding away from it.
        """
        return 1.0 if self.sigmas is None else self.sigmas[0]

    @property
    def stages(self) -> PhaseStages:
        """The stages that it goes through."""
        return PHASES[self.name]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pipeline.

    size_multiple: what height and width must be multiples of.
    label, description: for people.
    audio_phase: the phase whose audio is decoded; later phases' audio only steers the video.
    appends_first_image: whether the tokens of an image at frame 0 are appended, as those of later
        ones are, instead of taking the place of the first frame's.
    needs: the kind of condition that it cannot do without.
    takes_images: whether images can be given.
    distilled_checkpoint: whether it is made for a distilled checkpoint, rather than a base one.
    """

    name: PipelineName
    label: str
    description: str
    phases: tuple[Phase, ...]
    audio_phase: int
    size_multiple: int
    appends_first_image: bool = False
    needs: NeededKind | None = None
    takes_images: bool = True
    distilled_checkpoint: bool = False

    def rendered(self, side: int) -> int:
        """The next side that can be rendered, from which `side` pixels are cut."""
        return -(-side // self.size_multiple) * self.size_multiple

    @property
    def takes_sound(self) -> bool:
        """Whether the sound is given, and only the picture is made."""
        return self.needs == "sound"

    @property
    def takes_video(self) -> bool:
        """Whether a video is given, and only a part of it, or what is added, is made."""
        return self.needs in ("source", "extend")

    @property
    def gives(self) -> bool:
        """Whether a video or a sound is given."""
        return self.needs is not None

    @property
    def guided(self) -> bool:
        return any(phase.guided for phase in self.phases)

    @property
    def upsamples(self) -> bool:
        return len(self.phases) > 1

    @property
    def uses_distilled_lora(self) -> bool:
        return any(phase.distilled for phase in self.phases)


TWO_STAGES = (
    Phase("stage1", divisor=2, sigmas=None, guided=True, distilled=0.0),
    Phase("stage2", divisor=1, sigmas=REFINEMENT, guided=False, distilled=1.0),
)

ONE_SHORT = (Phase("stage1", divisor=1, sigmas=DISTILLED, guided=False, distilled=1.0),)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="two-stage",
                label="Two stages",
                description="The first act at half size, then a short second act at full size.",
                phases=TWO_STAGES,
                audio_phase=0,
                size_multiple=64,
            ),
            Recipe(
                name="hq",
                label="High quality",
                description="Two acts of a second-order sampler, with part of the distilled LoRA "
                "in both.",
                phases=(
                    Phase(
                        "stage1",
                        divisor=2,
                        sigmas=None,
                        guided=True,
                        distilled=0.25,
                        sampler="res-2s",
                        shifted_by_size=True,
                    ),
                    Phase(
                        "stage2",
                        divisor=1,
                        sigmas=REFINEMENT,
                        guided=False,
                        distilled=0.5,
                        sampler="res-2s",
                    ),
                ),
                audio_phase=0,
                size_multiple=64,
            ),
            Recipe(
                name="one-stage",
                label="One stage",
                description="One act at full size, with the base checkpoint alone.",
                phases=(Phase("stage1", divisor=1, sigmas=None, guided=True, distilled=0.0),),
                audio_phase=0,
                size_multiple=32,
            ),
            Recipe(
                name="keyframes",
                label="Between pictures",
                description="As with two stages, but the video goes through its images, the first "
                "one too, without being cut to them.",
                phases=TWO_STAGES,
                audio_phase=0,
                size_multiple=64,
                appends_first_image=True,
            ),
            Recipe(
                name="audio-to-video",
                label="From sound",
                description="As with two stages, but the picture is made for a sound that is "
                "given.",
                phases=TWO_STAGES,
                audio_phase=0,
                size_multiple=64,
                needs="sound",
            ),
            Recipe(
                name="retake",
                label="Part anew",
                description="One short act makes a part of a given video anew, with the distilled "
                "LoRA.",
                phases=ONE_SHORT,
                audio_phase=0,
                size_multiple=32,
                needs="source",
                takes_images=False,
            ),
            Recipe(
                name="retake-guided",
                label="Part anew, guided",
                description="Guided steps make a part of a given video anew, with the base "
                "checkpoint alone.",
                phases=(Phase("stage1", divisor=1, sigmas=None, guided=True, distilled=0.0),),
                audio_phase=0,
                size_multiple=32,
                needs="source",
                takes_images=False,
            ),
            Recipe(
                name="extend",
                label="Longer",
                description="One short act makes a given video longer, at its end or its "
                "beginning, with the distilled LoRA.",
                phases=ONE_SHORT,
                audio_phase=0,
                size_multiple=32,
                needs="extend",
                takes_images=False,
            ),
            Recipe(
                name="ic-lora",
                label="After a video",
                description="Two short acts; in the first an IC-LoRA follows a control video. "
                "Needs a distilled checkpoint.",
                phases=(
                    Phase(
                        "stage1",
                        divisor=2,
                        sigmas=DISTILLED,
                        guided=False,
                        distilled=0.0,
                        sees_control=True,
                    ),
                    Phase(
                        "stage2",
                        divisor=1,
                        sigmas=REFINEMENT,
                        guided=False,
                        distilled=0.0,
                        takes_loras=False,
                    ),
                ),
                audio_phase=1,
                size_multiple=64,
                needs="control",
                distilled_checkpoint=True,
            ),
            Recipe(
                name="ic-lora-one-stage",
                label="After a video, one stage",
                description="One short act at full size, in which an IC-LoRA follows a control "
                "video. Needs a distilled checkpoint.",
                phases=(
                    Phase(
                        "stage1",
                        divisor=1,
                        sigmas=DISTILLED,
                        guided=False,
                        distilled=0.0,
                        sees_control=True,
                    ),
                ),
                audio_phase=0,
                size_multiple=32,
                needs="control",
                distilled_checkpoint=True,
            ),
            # The checkpoint itself is a distilled one, so nothing is merged.
            Recipe(
                name="distilled",
                label="Distilled",
                description="Two short acts with a fixed number of steps and no guidance. "
                "Needs a distilled checkpoint.",
                phases=(
                    Phase("stage1", divisor=2, sigmas=DISTILLED, guided=False, distilled=0.0),
                    Phase("stage2", divisor=1, sigmas=REFINEMENT, guided=False, distilled=0.0),
                ),
                audio_phase=1,
                size_multiple=64,
                distilled_checkpoint=True,
            ),
            Recipe(
                name="distilled-one-stage",
                label="Distilled, one stage",
                description="One short act at full size with a fixed number of steps and no "
                "guidance. Needs a distilled checkpoint.",
                phases=(Phase("stage1", divisor=1, sigmas=DISTILLED, guided=False, distilled=0.0),),
                audio_phase=0,
                size_multiple=32,
                distilled_checkpoint=True,
            ),
        )
    }
)


def prefers_distilled(pipeline: str) -> bool:
    """Whether a pipeline, by its name, is made for a distilled checkpoint."""
    return pipeline in RECIPES and RECIPES[pipeline].distilled_checkpoint
