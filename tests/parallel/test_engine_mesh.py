"""Engines on the devices of a mesh make one video."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from entracte import Engine, Guidance, ImageCondition, Request, Residency
from entracte.group import Alone
from entracte.parallel import Mesh, Parallel

from .threads import on_ranks


def latents(
    model: Path,
    request: Request,
    residency: Residency,
    mesh: Mesh | None = None,
    parallel: Parallel = "auto",
) -> list[Tensor]:
    with Engine.open(
        model,
        device="cpu",
        dtype="float32",
        residency=residency,
        member=Alone(mesh),
        parallel=parallel,
    ) as engine:
        made = engine.generate(request, keep_frames=False).latents
    return [made[name] for name in sorted(made)]


@pytest.mark.slow
@pytest.mark.parametrize("residency", [Residency("resident"), Residency("fused")])
@pytest.mark.parametrize(
    ("size", "parallel"), [(2, "sequence"), (2, "guidance"), (4, "auto"), (4, "guidance")]
)
def test_one_video_on_all_devices(
    demo_model: Path, tmp_path: Path, size: int, parallel: Parallel, residency: Residency
) -> None:
    """The same on each, and that of one device, but for the order of its sums."""
    picture = tmp_path / "picture.png"
    Image.linear_gradient("L").save(picture)
    guidance = Guidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7)
    request = Request(
        "A quiet street",
        height=128,
        width=192,
        num_frames=17,
        num_inference_steps=1,
        images=(ImageCondition(picture), ImageCondition(picture, frame=8)),
        video_guidance=guidance,
        audio_guidance=guidance,
    )

    def work(mesh: Mesh) -> list[Tensor]:
        return latents(demo_model, request, residency, mesh, parallel)

    expected = latents(demo_model, request, residency)
    first, *others = on_ranks(size, work)
    for mine, theirs in zip(first, expected, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-3
    for other in others:
        assert all(map(torch.equal, first, other))
