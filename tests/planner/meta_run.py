"""A whole run of the engine on the meta device: every stage's work and memory, without weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Gemma3Config

from entracte import Request
from entracte.media.read_sound import Sound
from entracte.models.audio_vae import AudioVae
from entracte.models.calls import call_plainly
from entracte.models.connectors import Connectors
from entracte.models.decoders import PLAIN
from entracte.models.gemma import TextEncoder
from entracte.models.mel import BINS
from entracte.models.registry import LTX_2_3
from entracte.models.transformer import Transformer, TransformerConfig, run_blocks
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder
from entracte.parallel import ONE_RANK
from entracte.pipeline.cache import Cache
from entracte.pipeline.conditions import PreparedImage
from entracte.pipeline.given import NOTHING_GIVEN, GivenMedia
from entracte.pipeline.open_model import CACHED_PROMPTS, CACHED_SHAPES
from entracte.pipeline.outputs import Outputs
from entracte.pipeline.references import GivenControl
from entracte.pipeline.resolve import resolve
from entracte.pipeline.resolved import PreparedRequest
from entracte.pipeline.run import Run
from entracte.pipeline.runtime import Runtime
from entracte.planner.meta_ops import META
from entracte.planner.meter import Counts, Metered, counting
from entracte.planner.model_profile import ModelFigures
from entracte.planner.stage_laws import trace_stages
from entracte.planner.workload import Workload, recipe_weights
from entracte.progress import Reporter
from entracte.residency.backends.host import HostBackend
from entracte.sampling.tokens import KeptPart
from entracte.synthetic import demo_config
from entracte.synthetic.random_sizes import MEDIUM_TRANSFORMER
from entracte.trace.trace import Trace

# Four times as wide as the demonstration model's transformer, and deeper.
WIDE: dict[str, Any] = MEDIUM_TRANSFORMER | {
    "num_layers": 6,
    "connector_num_layers": demo_config.TRANSFORMER["connector_num_layers"],
    "audio_connector_num_layers": demo_config.TRANSFORMER["audio_connector_num_layers"],
}


def modules(transformer: dict[str, Any] = demo_config.TRANSFORMER) -> dict[str, nn.Module]:
    """The demonstration model's components, the transformer's config given."""
    gemma = demo_config.GEMMA["text_config"]
    with torch.device(META):
        found: dict[str, nn.Module] = {
            "text_encoder": TextEncoder(Gemma3Config(**demo_config.GEMMA)),
            "connectors": Connectors(
                transformer, gemma["hidden_size"] * (gemma["num_hidden_layers"] + 1)
            ),
            "transformer": Transformer(TransformerConfig.from_header(transformer)),
            "video_vae": VideoVae(demo_config.VIDEO_VAE),
            "upsampler": Upsampler(demo_config.UPSAMPLER),
            "audio_vae": AudioVae(demo_config.AUDIO_VAE),
            "vocoder": Vocoder(demo_config.VOCODER),
        }
    for name, module in found.items():
        module.requires_grad_(False).to(LTX_2_3.dtype_of(name, torch.bfloat16))
    return found


def figures(found: dict[str, nn.Module]) -> ModelFigures:
    """Those of some modules, without the bytes of their weights."""
    transformer = found["transformer"]
    assert isinstance(transformer, Transformer)
    others = {name: module for name, module in found.items() if name != "transformer"}
    stages = trace_stages(others, LTX_2_3, torch.bfloat16)
    return ModelFigures(LTX_2_3, {}, transformer.config, {}, stages, 2)


@dataclass(frozen=True, slots=True)
class Lent:
    """Lends modules as the device manager does."""

    modules: dict[str, nn.Module]

    @contextmanager
    def execute(self, plan: object) -> Iterator["Lent"]:
        yield self

    @contextmanager
    def borrow(self, name: str, kind: type) -> Iterator[nn.Module]:
        yield self.modules[name]

    @contextmanager
    def phase(self, number: int, kind: type) -> Iterator[nn.Module]:
        yield self.modules["transformer"]


class Recorder(Trace):
    """Also notes what every stage takes."""

    def __init__(self, counts: Counts) -> None:
        super().__init__(HostBackend())
        self.stages: list[tuple[str, Metered]] = []
        self._counts = counts

    @contextmanager
    def stage(self, name: str, of_host: bool = False) -> Iterator[Any]:
        counts = self._counts
        counts.peak, before = counts.now, counts.flops
        with super().stage(name, of_host) as span:
            yield span
        self.stages.append((name, Metered(counts.flops - before, counts.peak)))


@contextmanager
def counted_batches(transformer: nn.Module) -> Iterator[list[int]]:
    """One for every call of a block, which is given a batch."""
    found: list[int] = []
    hooks = [
        block.register_forward_pre_hook(lambda *_: found.append(1))
        for block in transformer.get_submodule("transformer_blocks").children()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def run(found: dict[str, nn.Module], prepared: PreparedRequest) -> list[tuple[str, Metered]]:
    """Every stage of a request with new prompts, on an engine that had one of the same sizes."""
    with counting() as counts:
        recorder = Recorder(counts)
        opened = Runtime(
            manager=Lent(found),  # type: ignore[arg-type]
            device=META,
            dtype=torch.bfloat16,
            latent_channels=128,
            contexts=Cache(CACHED_PROMPTS),
            rotary=rotary_tables(found["transformer"], prepared),
            previewers=Cache(1),
            run_blocks=run_blocks,
            calls=call_plainly,
            decoders=PLAIN,
        )
        no_plan: Any = None  # modules are lent as they are
        layouts = [ONE_RANK] * len(prepared.resolved.phases)
        outputs = Outputs(None, None, keep_frames=False)
        Run(opened, prepared, no_plan, layouts, recorder, Reporter(), outputs).generate()
    return recorder.stages


def rotary_tables(transformer: Any, prepared: PreparedRequest) -> Any:
    """Those that an earlier request has left."""
    found: Any = Cache(CACHED_SHAPES)
    resolved = prepared.resolved
    later, audio = resolved.appended_images, resolved.request.audio_tokens
    for phase in resolved.phases:
        tokens = phase.grid.tokens + resolved.appended_tokens(phase)
        positions = torch.zeros(3, tokens), torch.zeros(1, audio)
        tables = transformer.rotary(*positions, META, torch.bfloat16)
        key = phase.grid, audio, later, phase.references
        found.get(key, lambda tables=tables: tables)
    return found


def prepared(request: Request, layers: int) -> PreparedRequest:
    """As the engine prepares a request, whose images are black and whose sound is silent."""
    weights = recipe_weights(request.recipe)
    resolved = resolve(request, LTX_2_3.defaults, layers, weights)
    black = np.zeros((64, 64, 3), np.uint8)
    load, given = Workload.of(resolved, 0), NOTHING_GIVEN
    mel = torch.zeros(1, 2, load.heard, BINS)
    if request.sound is not None:
        given = GivenMedia(mel=mel, heard=Sound(torch.zeros(2, 1), 1), audio=KeptPart())
    if request.source is not None or request.extended is not None:
        frames = torch.zeros(1, 3, load.frames, load.height, load.width)
        kept = KeptPart(((0.1, 0.2),))
        given = GivenMedia(frames=frames, mel=mel, video=kept, audio=kept)
    if request.controls:
        given = GivenMedia(
            controls=tuple(
                GivenControl(
                    torch.zeros(1, 3, each.frames, *each.sides),
                    torch.ones(each.grid.tokens).bfloat16() if each.weighed else None,
                    each,
                )
                for each in resolved.phases[0].references
            )
        )
    return PreparedRequest(
        resolved,
        prompts=tuple(torch.arange(1024) + number for number in range(resolved.prompts)),
        images=tuple(PreparedImage(black, image.frame, 1.0) for image in request.images),
        given=given,
    )
