"""What the official implementation computed with a model of another version, by name."""

import torch

from entracte import ImageCondition, Request
from entracte.checkpoints.lora import open_lora
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.models.connectors import TextContext
from entracte.models.registry import ModelVersion
from entracte.models.transformer import Transformer, Velocity
from entracte.pipeline.conditions import EncodedImage
from entracte.pipeline.latents import Latents, empty_latents, prepare_latents
from entracte.pipeline.resolve import resolve
from entracte.pipeline.resolved import ResolvedPhase, ResolvedRequest
from entracte.planner.workload import recipe_weights
from entracte.sampling.denoiser import Denoiser
from entracte.sampling.noise import NoiseSource
from entracte.sampling.samplers import SAMPLERS
from entracte.sampling.tokens import StreamLatents, Tokens, audio_latent, video_latent
from tests.components import merged_copy, read_changes

from .oracle import ROOT, Recorded, distance, request_of

CPU = torch.device("cpu")

DATA = ROOT.parent
PIPELINES = {
    "two_stage": "two-stage",
    "two_stage_hq": "hq",
    "distilled": "distilled",
    "one_stage": "one-stage",
}

# One call of the transformer in bfloat16.
ONE_CALL = 1e-2


class VersionPack(Recorded):
    """A folder of `tests/data`, and the version that it is of."""

    def __init__(self, folder: str, version: ModelVersion, layers: int) -> None:
        super().__init__(DATA / folder)
        self._version, self._layers = version, layers

    def request(self, name: str) -> Request:
        case = self.case(name)
        images = tuple(ImageCondition(ROOT / path, *how) for path, *how in case["images"])
        return request_of(case, pipeline=PIPELINES[case["pipeline"]], images=images)

    def resolved(self, name: str) -> ResolvedRequest:
        request = self.request(name)
        weights = recipe_weights(request.recipe)
        return resolve(request, self._version.defaults, self._layers, weights)

    def begin(self, name: str, resolved: ResolvedRequest) -> tuple[Tokens, Tokens]:
        """The tokens of the first act, with recorded images."""
        request, phase = resolved.request, resolved.phases[0]
        images = [
            EncodedImage(self[f"{name}.image.{number}.latent"], image.frame, image.strength)
            for number, image in enumerate(request.images)
        ]
        start = empty_latents(phase.grid, 128, request.audio_tokens, CPU, torch.bfloat16)
        noise = NoiseSource(request.seed)
        return prepare_latents(start, phase.grid, images, noise, phase.phase.noise_scale)

    def with_distilled(self, model: Transformer, strength: float) -> Transformer:
        shapes = {"transformer": {n: tuple(each.shape) for n, each in model.state_dict().items()}}
        file = open_lora(SafetensorsFile(self.root / "distilled-lora.safetensors"), shapes)
        return merged_copy(model, [(read_changes(file), strength)])

    def assert_velocity(self, call: str, velocity: Velocity) -> None:
        assert distance(velocity.video, self[f"{call}.video.velocity"]) < ONE_CALL
        assert distance(velocity.audio, self[f"{call}.audio.velocity"]) < ONE_CALL

    def assert_begins_alike(self, name: str, resolved: ResolvedRequest) -> None:
        """Bit for bit: noised tokens of the first act, their noise levels and positions."""
        sigma = torch.tensor(resolved.phases[0].sigmas[0])
        tokens = self.begin(name, resolved)
        for stream, each in zip(("video", "audio"), tokens, strict=True):
            recorded = f"{name}.forward.0.{stream}"
            assert torch.equal(each.latent, self[f"{recorded}.latent"])
            assert torch.equal(each.mask * sigma, self[f"{recorded}.timesteps"][0, :, 0])
            assert torch.equal(each.spans, self[f"{recorded}.positions"][0])

    def assert_ends_alike(self, name: str, act: str, made: Latents) -> None:
        for stream, latent in (("video", made.video), ("audio", made.audio)):
            expected = f"{act}.{stream}_latent"
            assert distance(latent, self[f"{name}.{expected}"]) < self.tolerance(name, expected)


def denoise(
    seed: int,
    phase: ResolvedPhase,
    model: Transformer,
    tokens: tuple[Tokens, Tokens],
    contexts: list[TextContext],
) -> Latents:
    """The latents at the end of a phase."""
    video, audio = tokens
    denoiser = Denoiser(
        model,
        video,
        audio,
        contexts[: phase.contexts],
        model.rotary(video.positions, audio.positions, CPU, torch.bfloat16),
        phase.guidance,
        1,
    )
    final = SAMPLERS[phase.phase.sampler].loop(
        denoiser,
        StreamLatents(video.latent, audio.latent),
        torch.tensor(phase.sigmas),
        seed,
        lambda *_: None,
    )
    return Latents(video_latent(final.video, phase.grid), audio_latent(final.audio))
