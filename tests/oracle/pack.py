"""What the official implementation computed with a model of another version, by name."""

import json
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from entracte import Guidance, ImageCondition, Request
from entracte.checkpoints.lora import open_lora
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.models.connectors import TextContext
from entracte.models.registry import ModelVersion
from entracte.models.transformer import StreamInput, Transformer, Velocity, runs_of
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

from .oracle import ROOT, distance

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


def guidance(given: dict[str, Any] | None) -> Guidance | None:
    if given is None:
        return None
    return Guidance(
        cfg=given["cfg"],
        stg=given["stg"],
        stg_blocks=tuple(given["blocks"]) or None,
        modality=given["mod"],
        rescale=given["rescale"],
    )


class VersionPack:
    """Reads `expected.safetensors` and `expected.json` in a folder of `tests/data`."""

    def __init__(self, folder: str, version: ModelVersion, layers: int) -> None:
        self.root = DATA / folder
        self._version, self._layers = version, layers
        self._file = safe_open(self.root / "expected.safetensors", "pt")
        self._expected = json.loads((self.root / "expected.json").read_text())
        self.names = {*self._file.keys(), *self._expected["aliases"]}

    def __getitem__(self, name: str) -> Tensor:
        return self._file.get_tensor(self._expected["aliases"].get(name, name))

    def case(self, name: str) -> dict[str, Any]:
        case: dict[str, Any] = self._expected["cases"][name]
        return case

    def tolerance(self, case: str, name: str) -> float:
        """Three times what the official code moves by on another CPU, at least 2 %."""
        return max(2e-2, 3 * self._expected["sensitivity"][case][name])

    def request(self, name: str) -> Request:
        case = self.case(name)
        return Request(
            prompt=case["prompt"],
            negative_prompt=case.get("negative_prompt"),
            pipeline=PIPELINES[case["pipeline"]],
            height=case["height"],
            width=case["width"],
            num_frames=case["num_frames"],
            frame_rate=case["frame_rate"],
            num_inference_steps=case.get("num_inference_steps"),
            seed=case["seed"],
            images=tuple(
                ImageCondition(ROOT / path, frame, strength, crf)
                for path, frame, strength, crf in case["images"]
            ),
            video_guidance=guidance(case.get("video_guidance")),
            audio_guidance=guidance(case.get("audio_guidance")),
        )

    def inputs(
        self,
        call: str,
        model: Transformer,
        contexts: list[TextContext],
        pictures: tuple[tuple[int, int], ...] = (),
    ) -> tuple[StreamInput, StreamInput]:
        """The inputs of a recorded call of the transformer, such as `t2v.forward.0`."""
        streams = ("video", "audio")
        dtype = next(model.parameters()).dtype
        positions = [self[f"{call}.{stream}.positions"][0].mean(-1) for stream in streams]
        rotary = model.rotary(*positions, torch.device("cpu"), dtype)
        found = []
        for stream, angles in zip(streams, rotary, strict=True):
            distinct, runs = runs_of(self[f"{call}.{stream}.timesteps"].flatten().tolist())
            texts = [each.video if stream == "video" else each.audio for each in contexts]
            found.append(
                StreamInput(
                    latent=self[f"{call}.{stream}.latent"].to(dtype),
                    timesteps=torch.tensor(distinct),
                    runs=runs,
                    sigma=self[f"{call}.{stream}.sigma"],
                    contexts=torch.cat(texts).to(dtype),
                    rotary=angles,
                    pictures=pictures if stream == "video" else (),
                )
            )
        return found[0], found[1]

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
