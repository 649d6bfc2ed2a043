"""Where weights live, as the command line says it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entracte.cli.main import run
from entracte.config.generate import GenerateSettings
from entracte.config.reading import read_settings
from entracte.config.residency import build_residency, parse_places, parse_size
from entracte.errors import RequestError, ResidencyError

SMALL = ["--height", "128", "--width", "128", "--num-frames", "9", "--num-inference-steps", "1"]


@pytest.mark.parametrize(
    ("given", "nbytes"),
    [
        (None, None),
        ("1000", 1000),
        (1000, 1000),
        ("24GiB", 24 * 2**30),
        ("24G", 24 * 2**30),
        ("24 GB", 24 * 10**9),
        ("1.5MiB", 3 * 2**19),
        ("7kB".upper(), 7000),
        ("2TiB", 2**41),
        ("12B", 12),
    ],
)
def test_sizes(given: int | str | None, nbytes: int | None) -> None:
    assert parse_size("device_memory", given) == nbytes


@pytest.mark.parametrize(
    "given",
    ["", "GiB", "24GX", "-1GB", "1,5GB", "24 GiB free", "inf", -1, float("nan"), 10**5000],
    ids=lambda given: f"{given}"[:9] if isinstance(given, str | float) else f"{given % 10}",
)
def test_what_is_no_size(given: float | str) -> None:
    with pytest.raises(RequestError, match="--device-memory takes a size such as 24GiB"):
        parse_size("device_memory", given)


@given(number=st.integers(0, 10**6), unit=st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_binary_units_are_powers_of_1024(number: int, unit: str) -> None:
    power = ["KiB", "MiB", "GiB", "TiB"].index(unit) + 1
    assert parse_size("x", f"{number}{unit}") == number * 1024**power


def test_places() -> None:
    assert parse_places(["text_encoder=disk", "video_vae=snapshot"]) == {
        "text_encoder": "disk",
        "video_vae": "snapshot",
    }
    assert parse_places(["vocoder=disk", "vocoder=disk"]) == {"vocoder": "disk"}


@pytest.mark.parametrize("word", ["text_encoder", "text_encoder=", "=disk", ""])
def test_what_is_no_place(word: str) -> None:
    with pytest.raises(RequestError, match="--place takes NAME=PLACE, such as text_encoder=disk"):
        parse_places([word])


def test_contradictory_places() -> None:
    with pytest.raises(RequestError, match="names vocoder twice: disk and resident"):
        parse_places(["vocoder=disk", "vocoder=resident"])


def test_environment_and_flags_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTRACTE_MODE", "fused")
    monkeypatch.setenv("ENTRACTE_DEVICE_MEMORY", "24GiB")
    wanted = build_residency(
        read_settings(GenerateSettings, {"merged_blocks": 12, "place": ["vocoder=disk"]})
    )
    assert (wanted.mode, wanted.merged_blocks, wanted.device_memory) == ("fused", 12, 24 * 2**30)
    assert wanted.places == {"vocoder": "disk"}


def test_legacy_is_the_original_mode() -> None:
    assert build_residency(read_settings(GenerateSettings, {"mode": "legacy"})).mode == "original"


def test_dials_of_other_modes_are_refused() -> None:
    with pytest.raises(ResidencyError, match="merged_blocks applies only to mode fused"):
        build_residency(read_settings(GenerateSettings, {"mode": "resident", "merged_blocks": 3}))


@pytest.mark.slow
def test_a_video_in_a_mode(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Places given in one flag or in several; the result and the dump say where all bytes are."""
    dump = tmp_path / "dump.json"
    code = run(
        [
            *("generate", "--model", str(demo_model), "--prompt", "A quiet street", *SMALL),
            *("--mode", "fused", "--resident-blocks", "1", "--merged-blocks", "1"),
            *("--place", "text_encoder=streamed", "vocoder=disk", "--place", "upsampler=snapshot"),
            *("--output-path", str(tmp_path / "video.mp4"), "--json"),
            *("--perf-dump-path", str(dump)),
        ]
    )
    assert code == 0
    summary = json.loads(capsys.readouterr().out)
    rows = {(row["component"], row["where"], row["role"]) for row in summary["residency"]}
    assert ("transformer", "device", "slot") in rows
    assert ("upsampler", "pageable", "weights") in rows
    assert not any(component == "vocoder" for component, _, _ in rows)
    assert ("text_encoder", "device", "slot") not in rows  # given back after its loan
    assert summary["settings"]["mode"] == "fused"
    assert summary["counts"]["weights_bytes_out"] == 0
    assert json.loads(dump.read_text())["meta"]["residency"] == summary["residency"]


def test_a_budget_is_refused_before_anything_is_written(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "video.mp4"
    code = run(
        [
            *("generate", "--model", str(demo_model), "--prompt", "A quiet street", *SMALL),
            *("--device-memory", "20MB", "--mode", "resident", "--output-path", str(output)),
        ]
    )
    assert code == 2
    said = capsys.readouterr().err
    assert "more than the 20.00 MB allowed" in said
    assert "This fits: --mode" in said
    assert not output.exists()
