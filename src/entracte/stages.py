"""The stages of a request, each declared once, in the order of the run.

Progress, traces, plans, loans, the API, the page and the tables of benchmarks take names, words and
components from here. To add a stage, declare it, put it into its place below, and enter it in
`pipeline/run.py`; a stage that computes much also gets its cost in `planner/work.py`.

It is outside `pipeline` because `trace`, `recipes` and others that do not know the run need it too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Act(StrEnum):
    """The parts of the work on a video, as the page names them."""

    PREPARE = "Prepare"
    ACT_1 = "Act 1"
    INTERVAL = "Interval"
    ACT_2 = "Act 2"
    FINISH = "Finish"


@dataclass(frozen=True, slots=True)
class Stage:
    """A named piece of a request's work.

    name: in progress, traces, plans and the API; stages of a phase end in its name in parentheses.
    label: what the page shows while it runs; empty for stages too short to report.
    uses: the components it borrows, all at once. The transformer is never among them: a run holds
    it
        for its phases.
    on_host: the device computes nothing in it.
    efficiency: the assumed share of the device's rate of matrix products until one is measured; 0
        for stages that compute too little to be planned.
    row: its row in a benchmark's table; empty for none.
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
    """The stages of one phase of a recipe."""

    encode_images: Stage
    prepare_latents: Stage
    switch: Stage
    loop: Stage

    @property
    def in_order(self) -> tuple[Stage, ...]:
        return self.encode_images, self.prepare_latents, self.switch, self.loop


# Measured on an H200 and an H100 that make products at 776 and 762 TFLOP/s. Guided steps of 1,536
# tokens took 0.270 and 0.274 s from graphs, and of 6,144 tokens on the H100 1.106 s; unguided ones
# of 6,144 tokens 0.341 and 0.343 s, and of 24,576 tokens 1.89 s (`benchmarks/step.py`). Decoding
# 768x512 with 121 frames took 0.256 s; a prompt, whose products are counted as those of 1,024
# tokens, 66 ms without graphs, and 10 ms in the connectors. The host launches text and the other
# convolutions more slowly than a GPU computes them.
TRANSFORMER, ENCODER, CONNECTORS, DECODING, CONVOLUTIONS = 0.83, 0.5, 0.8, 0.7, 0.35

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
    efficiency=ENCODER,
    row="TextEncoding",
)
CONNECT_TEXT = Stage(
    "connect text",
    Act.PREPARE,
    "Reading the prompt",
    uses=("connectors",),
    efficiency=CONNECTORS,
    row="TextConnector",
)
ENCODE_VIDEO = Stage(
    "encode video",
    Act.PREPARE,
    "Looking at the video",
    uses=("video_vae",),
    efficiency=CONVOLUTIONS,
    row="TimestepPreparation",
)
ENCODE_SOUND = Stage(
    "encode sound",
    Act.PREPARE,
    "Listening to the sound",
    uses=("audio_vae",),
    efficiency=CONVOLUTIONS,
    row="TimestepPreparation",
)
UPSAMPLE = Stage(
    "upsample",
    Act.INTERVAL,
    "Enlarging",
    uses=("upsampler", "video_vae"),
    efficiency=CONVOLUTIONS,
    row="Upsample",
)
# They are on loan for both: a GPU begins with the picture, and decodes the sound beside it.
DECODERS = ("video_vae", "audio_vae", "vocoder")
DECODE_AUDIO = Stage(
    "decode audio",
    Act.FINISH,
    "Decoding the sound",
    uses=DECODERS,
    efficiency=DECODING,
    row="AVDecoding",
)
DECODE_VIDEO = Stage(
    "decode video",
    Act.FINISH,
    "Decoding the picture",
    uses=DECODERS,
    efficiency=DECODING,
    row="AVDecoding",
)
MUX = Stage("mux", Act.FINISH, "Writing the file", on_host=True)


def _stages_of_phase(phase: str, before: Act, ordinal: str, loop: Stage) -> PhaseStages:
    """The stages of a phase. before: the act of all but its loop."""
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

# The order of a run: what comes first, for every new prompt, for what is given,
# between two phases, and last.
OPENING = (VALIDATE, PREPARE_INPUTS, LOAD_WEIGHTS, PREPARE_PREVIEWS)
FOR_A_PROMPT = (ENCODE_TEXT, CONNECT_TEXT)
FOR_WHAT_IS_GIVEN = (ENCODE_VIDEO, ENCODE_SOUND)
BETWEEN_PHASES = (UPSAMPLE,)
CLOSING = (DECODE_AUDIO, DECODE_VIDEO, MUX)


def stages_of(phases: Iterable[str] = PHASES, gives: bool = True) -> tuple[Stage, ...]:
    """The stages of a run through these phases, each once, in the order of the run.

    gives: whether a part of the video is given.
    """
    found = [*OPENING, *FOR_A_PROMPT]
    found += FOR_WHAT_IS_GIVEN if gives else ()
    for number, phase in enumerate(phases):
        found += BETWEEN_PHASES if number else ()
        found += PHASES[phase].in_order
    return (*found, *CLOSING)
