import json
import logging
import math
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from entracte.errors import DeviceFault, OutOfMemory
from entracte.machine import cache, probe, survey
from entracte.machine import disk as disk_module
from entracte.machine import rates as rates_module
from entracte.machine.cache import Identity
from entracte.machine.device import DeviceFacts
from entracte.machine.disk import DiskRate, disk_rate
from entracte.machine.host import HostFacts
from entracte.machine.rates import MEASURES
from entracte.machine.refused import NotMeasured, TooLittle
from entracte.machine.survey import CPU_RATES
from entracte.residency.backends.host import HostBackend
from entracte.residency.backends.protocol import HostMemory

from .test_rates import SMALL

survey_module = sys.modules[survey.__module__]  # the package has a function of its name
GIB = 2**30
MIB = 2**20


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder, and quick measurements."""
    monkeypatch.setenv("ENTRACTE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(rates_module, "HOST", SMALL)
    monkeypatch.setattr(rates_module, "SECONDS", 0.002)
    return tmp_path / "cache"


class Unwilling(HostBackend):
    """Gives no memory."""

    def allocate(self, nbytes: int, again: Tensor | None = None) -> Tensor:
        raise OutOfMemory("none is left\nnot a byte")


class Untouched(HostBackend):
    """Nothing may be measured with it."""

    def allocate(self, nbytes: int, again: Tensor | None = None) -> Tensor:
        raise AssertionError("measured again")


class Apart(HostBackend):
    """As if it had memory of its own, to which copies from pinned memory are to be made."""

    def __init__(self, pins: bool) -> None:
        super().__init__()
        self.unified = False
        self._pins = pins

    def allocate_host(self, nbytes: int, pinned: bool, name: str | None = None) -> HostMemory:
        memory = super().allocate_host(nbytes, pinned, name)
        return replace(memory, pinned=pinned and self._pins)


# Rates.


@pytest.mark.gpu
def test_a_cuda_device(kept: Path) -> None:
    from entracte.residency.backends.cuda import CudaBackend

    backend = CudaBackend(torch.device("cuda", 0))
    hardware = probe(backend, torch.bfloat16)
    assert {o for n, o in hardware.origins.items() if n != "disk"} == {"measured"}
    assert hardware.rates.pageable < hardware.rates.h2d < hardware.rates.device_copy
    assert hardware.rates.merge < hardware.rates.matmul
    free, total = torch.cuda.mem_get_info(0)
    assert 0.9 * free < hardware.device_memory <= total
    backend.close()


def test_measuring_leaves_the_random_numbers_alone(kept: Path) -> None:
    state = torch.get_rng_state()
    probe(HostBackend(), torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), state)


def test_this_machine(kept: Path) -> None:
    backend = HostBackend()
    hardware = probe(backend, torch.bfloat16)
    for rate in asdict(hardware.rates).values():
        assert math.isfinite(rate)
        assert 1e6 < rate < 1e16
    assert hardware.unified
    assert hardware.pinned_memory is None
    assert hardware.device_memory == hardware.host_memory > 100 * MIB
    assert hardware.origins == dict.fromkeys(MEASURES, "measured") | {"disk": "assumed"}


# Kept rates.


def test_the_second_time_nothing_is_measured(kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = probe(HostBackend(), torch.bfloat16)
    assert probe(Untouched(), torch.bfloat16).rates == first.rates
    assert not caplog.records
    with pytest.raises(AssertionError, match="measured again"):
        probe(Untouched(), torch.bfloat16, refresh=True)
    with pytest.raises(AssertionError, match="measured again"):
        probe(Untouched(), torch.float32)


def test_memory_is_never_kept(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe(HostBackend(), torch.bfloat16)
    facts = HostFacts(10 * GIB, None, 5 * GIB, GIB, 0, 0, None)
    monkeypatch.setattr(survey_module, "host_facts", lambda: facts)
    hardware = probe(Untouched(), torch.bfloat16)
    assert hardware.host_memory == hardware.device_memory == 6 * GIB


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:40],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"h2d": ', '"h2d": -'),
        lambda text: text.replace('"h2d": ', '"h2d": "fast", "other": '),
        lambda text: text.replace('"h2d": ', '"h2d": NaN, "other": '),
    ],
)
def test_a_damaged_file(kept: Path, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    probe(HostBackend(), torch.bfloat16)
    path = only_file(kept)
    path.write_text(damage(path.read_text()))
    hardware = probe(HostBackend(), torch.bfloat16)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "damaged" in caplog.text
    assert str(kept) not in caplog.text
    assert json.loads(path.read_text())["rates"]["h2d"] == hardware.rates.h2d
    caplog.clear()
    probe(Untouched(), torch.bfloat16)
    assert not caplog.records


def test_bytes_that_are_no_text(kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    probe(HostBackend(), torch.bfloat16)
    only_file(kept).write_bytes(b"\xff\xfe\x00")
    probe(HostBackend(), torch.bfloat16)
    assert "damaged" in caplog.text


def test_an_unknown_rate_is_passed_over(kept: Path) -> None:
    probe(HostBackend(), torch.bfloat16)
    path = only_file(kept)
    text = json.loads(path.read_text())
    text["rates"]["warp"] = 9.0
    path.write_text(json.dumps(text))
    probe(Untouched(), torch.bfloat16)


@pytest.mark.parametrize("version", ["driver", "torch", "entracte"])
def test_another_version(kept: Path, version: str, caplog: pytest.LogCaptureFixture) -> None:
    probe(HostBackend(), torch.bfloat16)
    path = only_file(kept)
    text = json.loads(path.read_text())
    text["identity"][version] = "1.0-old"
    text["rates"]["h2d"] = 123.0
    path.write_text(json.dumps(text))
    assert probe(HostBackend(), torch.bfloat16).rates.h2d != 123.0
    assert f"{version} 1.0-old, not " in caplog.text
    assert json.loads(path.read_text())["identity"][version] != "1.0-old"


def test_a_file_for_every_machine_but_not_for_every_version() -> None:
    one = Identity("NVIDIA L4", 10, "0000:01:00.0", 8, 0, "bfloat16", "550", "2.13", "0.1")
    assert one.file_name.startswith("rates-nvidia-l4-bfloat16-")
    for field, value in asdict(one).items():
        other = replace(one, **{field: value + type(value)(1)})
        assert (other.file_name == one.file_name) == (field in ("driver", "torch", "entracte"))


def test_a_folder_that_cannot_be_made(
    kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept.parent.joinpath("file").touch()
    monkeypatch.setenv("ENTRACTE_CACHE_DIR", str(kept.parent / "file" / "cache"))
    hardware = probe(HostBackend(), torch.bfloat16)
    assert hardware.origins["h2d"] == "measured"
    assert "cannot be kept" in caplog.text
    assert str(kept.parent) not in caplog.text


def test_a_folder_that_cannot_be_written(
    kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    assert probe(HostBackend(), torch.bfloat16).origins["h2d"] == "measured"
    assert "measured again: Permission denied" in caplog.text
    assert str(kept) not in caplog.text
    assert not list(kept.iterdir())


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ENTRACTE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "entracte"


# What cannot be measured.


def test_no_memory_to_measure_with(kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = survey(Unwilling(), torch.bfloat16)
    refused = {"merge", "device_copy", "h2d", "d2h", "pageable"}
    assert found.not_measured == dict.fromkeys(refused, "none is left")
    origins = found.hardware.origins
    assert {name for name in MEASURES if origins[name] == "assumed"} == refused
    assert found.hardware.rates.h2d == CPU_RATES.h2d
    assert len(caplog.records) == len(refused)
    # What is missing is measured as soon as it can be, and nothing else.
    matmul = found.hardware.rates.matmul
    again = survey(HostBackend(), torch.bfloat16)
    assert again.not_measured == {}
    assert again.hardware.rates.matmul == matmul


def test_refused_pinning(kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = survey(Apart(pins=False), torch.bfloat16)
    assert found.hardware.pinned_memory == 0
    assert found.not_measured.keys() == {"h2d", "d2h"}
    assert found.hardware.origins["pageable"] == "measured"
    assert "refused to pin" in caplog.text
    assert "taken to be like an l4" in caplog.text  # no card has this processor's name


def test_pinning(kept: Path) -> None:
    found = survey(Apart(pins=True), torch.bfloat16)
    assert found.hardware.pinned_memory is None
    assert not found.hardware.unified
    assert found.not_measured == {}


class OnCuda(Untouched):
    """As if it were a CUDA device."""

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cuda", 0)
        self.unified = False


def keep_rates(facts: DeviceFacts) -> None:
    identity = survey_module._identity(OnCuda(), torch.bfloat16, facts)
    cache.keep(identity, cache.Kept(rates=dict.fromkeys(MEASURES, 5.0)))


def test_a_devices_own_memory(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = DeviceFacts("NVIDIA L4", total=24 * GIB, free=20 * GIB, own=3 * GIB, driver="550")
    monkeypatch.setattr(survey_module, "device_facts", lambda device, for_peers: facts)
    keep_rates(facts)
    hardware = probe(OnCuda(), torch.bfloat16)
    assert hardware.device_memory == 23 * GIB
    assert hardware.name == "NVIDIA L4"
    assert hardware.rates.h2d == 5.0


def test_a_device_that_does_not_answer(
    kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def silent(device: torch.device, for_peers: int) -> DeviceFacts:
        raise DeviceFault("asking the device: CUDA error\nfurther lines")

    monkeypatch.setattr(survey_module, "device_facts", silent)
    keep_rates(DeviceFacts("unknown"))
    assert probe(OnCuda(), torch.bfloat16).device_memory == int(22.0 * GIB)
    assert "asking the device: CUDA error" in caplog.text
    assert "are assumed" in caplog.text


# Disks.


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "within").mkdir()
    for name, size in (("a.safetensors", 40), ("within/b.safetensors", 60)):
        with (folder / name).open("wb") as file:
            file.write(os.urandom(MIB) * size)
            file.flush()
            os.fsync(file.fileno())
    (folder / "empty").touch()
    return folder


def test_disk(large_folder: Path) -> None:
    assert 1e6 < disk_rate(large_folder).bytes_per_second < 1e12


@pytest.mark.skipif(sys.platform != "linux", reason="others do not say what is in memory")
def test_files_that_stay_in_memory_are_noticed(
    large_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = large_folder / "a.safetensors"
    path.read_bytes()
    with path.open("rb") as file:
        monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: None)
        assert not disk_module._forget(file.fileno(), path.stat().st_size)


def test_no_more_is_read_than_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(bytes((number + 1) * MIB))
    (tmp_path / "within" / "deeper").mkdir(parents=True)
    (tmp_path / "within" / "deeper" / "other").write_bytes(bytes(9 * MIB))
    monkeypatch.setattr(disk_module, "MOST_BYTES", 4 * MIB)
    files = disk_module._largest_files(tmp_path)
    assert [(path.name, size) for path, size in files] == [("2", 3 * MIB), ("1", MIB)]


def test_a_folder_with_little_in_it(
    kept: Path, demo_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TooLittle):
        disk_rate(demo_model)
    hardware = probe(HostBackend(), torch.bfloat16, folder=demo_model)
    assert hardware.origins["disk"] == "assumed"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_folder_that_is_not_there(
    kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hardware = probe(HostBackend(), torch.bfloat16, folder=tmp_path / "gone")
    assert hardware.origins["disk"] == "assumed"
    assert "No such file" in caplog.text
    assert str(tmp_path) not in caplog.text


def test_a_disk_is_measured_once(
    kept: Path, large_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey_module, "disk_rate", lambda folder: DiskRate(1e9, cached=False))
    first = probe(HostBackend(), torch.bfloat16, folder=large_folder)
    assert first.rates.disk == 1e9
    assert first.origins["disk"] == "measured"
    monkeypatch.setattr(survey_module, "disk_rate", lambda folder: pytest.fail("measured again"))
    assert probe(Untouched(), torch.bfloat16, folder=large_folder / "within").rates.disk == 1e9
    assert probe(Untouched(), torch.bfloat16).origins["disk"] == "assumed"


def test_a_rate_of_files_in_memory_is_said_and_not_kept(
    kept: Path,
    large_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(survey_module, "disk_rate", lambda folder: DiskRate(9e9, cached=True))
    found = survey(HostBackend(), torch.bfloat16, large_folder)
    assert found.disk_cached
    assert "slower than measured" in caplog.text
    assert json.loads(only_file(kept).read_text())["disks"] == {}


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(2 * MIB))
    monkeypatch.setattr(disk_module, "LEAST_BYTES", MIB)

    def refuse(*arguments: Any) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk_module, "_forget", refuse)
    with pytest.raises(NotMeasured, match="Input/output error"):
        disk_rate(tmp_path)
