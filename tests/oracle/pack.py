"""What the official implementation computed with a model of another version, by name."""

import json
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from entracte import Guidance, ImageCondition, Request
from entracte.models.connectors import TextContext
from entracte.models.transformer import StreamInput, Transformer, runs_of

from .oracle import ROOT

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

    def __init__(self, folder: str) -> None:
        self.root = DATA / folder
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
