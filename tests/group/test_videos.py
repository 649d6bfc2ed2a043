"""Videos that several processes make together."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from entracte import Engine, Guidance, Request, Residency
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.sources import ModelSource
from entracte.cli.main import run
from entracte.errors import Cancelled, OutOfMemory
from entracte.group import Leader, Member
from entracte.machine.hardware import Hardware, PeerLink, Rates
from entracte.pipeline.following import FollowingModel
from entracte.pipeline.open_model import OpenModel
from entracte.progress import Progress
from entracte.residency.backends.host import HostBackend

from .work import processes

CPU = torch.device("cpu")
SOUND = Path(__file__).parent.parent / "data" / "pipelines" / "audio48.wav"
SMALL = [
    "--height", "128", "--width", "128", "--num-frames", "9", "--num-inference-steps", "1",
]  # fmt: skip

# What makes order of sums of float32 in the demonstration model.
DISTANCE = 1e-3


def arguments(model: Path, folder: Path, name: str, *flags: str) -> list[str]:
    return [
        *("generate", "--model", str(model), "--prompt", "A street", "--dtype", "float32"),
        *("--mode", "resident", "--output-path", str(folder / f"{name}.mp4")),
        *("--latents-path", str(folder / f"{name}.safetensors"), *SMALL, *flags),
    ]


def are_close(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(
        float((first[name] - second[name]).norm() / first[name].norm()) < DISTANCE for name in first
    )


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["hq", "audio-to-video", "retake"])
def test_two_devices_make_every_recipe(demo_model: Path, tmp_path: Path, pipeline: str) -> None:
    flags = ["--pipeline", pipeline]
    if pipeline == "audio-to-video":
        flags += ["--sound", str(SOUND)]
    if pipeline == "retake":
        flags += ["--source", str(SOUND.parent / "retake.mp4"), "0.2", "0.3"]
    for name, devices in (("one", ("--device", "cpu")), ("two", ("--devices", "cpu", "cpu"))):
        given = arguments(demo_model, tmp_path, name, *flags, *devices)
        if pipeline == "retake":
            at = given.index("--num-inference-steps")
            del given[at : at + 2]
        assert run(given) == 0
    assert are_close(tmp_path / "one.safetensors", tmp_path / "two.safetensors")


@pytest.mark.slow
def test_two_devices_make_what_one_does(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(demo_model, tmp_path, "one", "--device", "cpu")) == 0
    capsys.readouterr()
    dump = tmp_path / "dump.json"
    flags = ["--devices", "cpu", "cpu", "--json", "--perf-dump-path", str(dump)]
    assert run(arguments(demo_model, tmp_path, "two", *flags)) == 0
    assert json.loads(capsys.readouterr().out)["output_path"] == str(tmp_path / "two.mp4")
    assert are_close(tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    (other,) = json.loads(dump.read_text())["ranks"]
    assert {"denoise", "refine"} <= {stage["name"] for stage in other["steps"]}


@pytest.mark.slow
def test_torchrun_starts_the_ranks(demo_model: Path, tmp_path: Path) -> None:
    assert run(arguments(demo_model, tmp_path, "one", "--device", "cpu")) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    made = subprocess.run(
        [*launcher, "-m", "entracte", *arguments(demo_model, tmp_path, "two", "--quiet")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert are_close(tmp_path / "one.safetensors", tmp_path / "two.safetensors")


# Two devices that a planner need not measure.
HARDWARE = Hardware(
    "slow",
    10**11,
    10**11,
    Rates(matmul=1e10, merge=1e9, device_copy=1e9, h2d=1e8, d2h=1e8, pageable=1e7, disk=1e7),
    devices=2,
    peers=PeerLink(copy=1e9, latency=1e-5, exchange=1e9, direct=False),
)


class Refusing(HostBackend):
    """Refuses an allocation, once, after five others."""

    allocations = 0

    def allocate(self, nbytes: int, again: Tensor | None = None) -> Tensor:
        self.allocations += 1
        if self.allocations == 6:
            raise OutOfMemory("the device refuses")
        return super().allocate(nbytes, again)


@dataclass(frozen=True, slots=True)
class OpenRefusing:
    """Opens the model of a follower, on a device that refuses."""

    model: Path

    def __call__(self, member: Member, device: torch.device) -> FollowingModel:
        source, backend = source_of(self.model), Refusing(peers=member)
        opened = OpenModel(source, backend, torch.float32, Residency("fused"), "auto", member)
        return FollowingModel(opened, member)


def source_of(model: Path) -> ModelSource:
    return open_model(str(model), ModelPaths(), distilled=False)


def small() -> Request:
    guidance = Guidance()
    return Request(
        "A street",
        height=128,
        width=128,
        num_frames=9,
        num_inference_steps=2,
        video_guidance=guidance,
        audio_guidance=guidance,
    )


@pytest.mark.slow
def test_memory_that_runs_out_on_one_rank(demo_model: Path) -> None:
    """All plan more cheaply, and try again; and a cancel then leaves the group able to work."""
    leader = Leader([CPU, CPU], OpenRefusing(demo_model))
    source, backend, auto = source_of(demo_model), HostBackend(peers=leader), Residency("auto")
    with Engine(source, backend, torch.float32, auto, HARDWARE, member=leader) as engine:
        before = engine.plan(small())
        pids = processes(leader)
        result = engine.generate(small(), keep_frames=False)
        assert result.decision is not None
        cheaper = result.decision.chosen.prediction
        assert cheaper.peak_device_bytes < before.chosen.prediction.peak_device_bytes
        assert len(result.followers) == 1

        seen: list[Progress] = []
        stop = partial(_in_steps, seen)
        with pytest.raises(Cancelled):
            engine.generate(small(), progress=seen.append, should_stop=stop)
        again = engine.generate(small(), keep_frames=False).latents
        assert all(torch.equal(again[name], result.latents[name]) for name in again)
        assert processes(leader) == pids


def _in_steps(seen: list[Progress]) -> bool:
    return bool(seen) and seen[-1].stage == "denoise" and seen[-1].step == 1
