"""The stages of a request, each declared once, in the order of the run.

Progress, traces, plans, loans, the API, the page and the tables of benchmarks take names, words and
components from here. To add a stage, declare it, put it into its place below, and enter it in
`pipeline/run.py`; a stage that computes much also gets its cost in `planner/work.py`.

It stands below `pipeline` because what does not know the run, such as `trace` and `recipes`, may
need it too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Act(StrEnum):
    """The parts in which a video comes about, as the page names them."""

    PREPARE = "Prepare"
    ACT_1 = "Act 1"
    INTERVAL = "Interval"
    ACT_2 = "Act 2"
    FINISH = "Finish"


@dataclass(frozen=True, slots=True)
class Stage:
    """A named piece of a request's work.

    name: in progress, traces, plans and the API; a phase's own stages name it in parentheses.
    label: what the page says while it runs; empty for one that is over too soon to be reported.
    uses: the components on loan for it, all at once. The transformer is never among them: a run
        holds it for its phases.
    on_host: nothing computes on the device in it.
    efficiency: the share of the device's rate of matrix products that it is taken to reach until
        one was measured; 0 for what computes too little to be planned.
    row: the row of a benchmark's table that it counts in; empty for none.
    """

    name: str
    act: Act
    label: str = ""
    uses: tuple[str, ...] = ()
    on_host: bool = False
    efficiency: float = 0.0
    row: str = ""

    @property
    def kind(self) -> str:
        """The name without the phase that it belongs to."""
        return kind(self.name)


def kind(name: str) -> str:
    """A stage's name without the phase that it belongs to."""
    return name.partition(" (")[0]


@dataclass(frozen=True, slots=True)
class PhaseStages:
    """The stages that every phase of a recipe has of its own."""

    encode_images: Stage
    prepare_latents: Stage
    switch: Stage
    loop: Stage

    @property
    def in_order(self) -> tuple[Stage, ...]:
        return self.encode_images, self.prepare_latents, self.switch, self.loop


# The transformer's efficiency was measured on an H200, where steps of 1,536 and 6,144 tokens took
# 0.342 s and 1.332 s (`benchmarks/step.py`, plain). The others have not been measured on a GPU.
TRANSFORMER, TEXT, CONVOLUTIONS = 0.80, 0.5, 0.35

VALIDATE = Stage("validate", Act.PREPARE, on_host=True, row="InputValidation")
PREPARE_INPUTS = Stage("prepare inputs", Act.PREPARE, on_host=True)
LOAD_WEIGHTS = Stage(
    "load weights", Act.PREPARE, "Bringing the weights", on_host=True, row="LoRASwitch"
)
PREPARE_PREVIEWS = Stage("prepare previews", Act.PREPARE, uses=("video_vae",))
ENCODE_TEXT = Stage(
    "encode text",
    Act.PREPARE,
    "Reading the prompt",
    uses=("text_encoder",),
    efficiency=TEXT,
    row="TextEncoding",
)
CONNECT_TEXT = Stage(
    "connect text",
    Act.PREPARE,
    "Reading the prompt",
    uses=("connectors",),
    efficiency=TEXT,
    row="TextConnector",
)
UPSAMPLE = Stage(
    "upsample",
    Act.INTERVAL,
    "Enlarging",
    uses=("upsampler", "video_vae"),
    efficiency=CONVOLUTIONS,
    row="Upsample",
)
DECODE_AUDIO = Stage(
    "decode audio",
    Act.FINISH,
    "Decoding the sound",
    uses=("audio_vae", "vocoder"),
    efficiency=CONVOLUTIONS,
    row="AVDecoding",
)
DECODE_VIDEO = Stage(
    "decode video",
    Act.FINISH,
    "Decoding the picture",
    uses=("video_vae",),
    efficiency=CONVOLUTIONS,
    row="AVDecoding",
)
MUX = Stage("mux", Act.FINISH, "Writing the file", on_host=True)


def _stages_of_phase(phase: str, before: Act, ordinal: str, loop: Stage) -> PhaseStages:
    """The stages of a phase. before: the act in which all but its loop are."""
    return PhaseStages(
        encode_images=Stage(
            f"encode images ({phase})",
            before,
            "Encoding the images",
            uses=("video_vae",),
            efficiency=CONVOLUTIONS,
            row="TimestepPreparation",
        ),
        prepare_latents=Stage(f"prepare latents ({phase})", before, row="TimestepPreparation"),
        switch=Stage(
            f"switch to {phase}",
            before,
            f"Switching to the {ordinal} act",
            on_host=True,
            row="LoRASwitch",
        ),
        loop=loop,
    )


DENOISE = Stage("denoise", Act.ACT_1, "Denoising", efficiency=TRANSFORMER, row="AVDenoising")
REFINE = Stage("refine", Act.ACT_2, "Refining", efficiency=TRANSFORMER, row="Refinement")

# By the name of the phase.
PHASES: Mapping[str, PhaseStages] = MappingProxyType(
    {
        "stage1": _stages_of_phase("stage1", Act.PREPARE, "first", DENOISE),
        "stage2": _stages_of_phase("stage2", Act.INTERVAL, "second", REFINE),
    }
)

# The order of a run: what comes first, for every new prompt, between two phases, and last.
OPENING = (VALIDATE, PREPARE_INPUTS, LOAD_WEIGHTS, PREPARE_PREVIEWS)
FOR_A_PROMPT = (ENCODE_TEXT, CONNECT_TEXT)
BETWEEN_PHASES = (UPSAMPLE,)
CLOSING = (DECODE_AUDIO, DECODE_VIDEO, MUX)


def stages_of(phases: Iterable[str] = PHASES) -> tuple[Stage, ...]:
    """The stages of a run through these phases, each once, in the order of the run."""
    found = [*OPENING, *FOR_A_PROMPT]
    for number, phase in enumerate(phases):
        found += BETWEEN_PHASES if number else ()
        found += PHASES[phase].in_order
    return (*found, *CLOSING)
