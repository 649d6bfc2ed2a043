"""Flags over environment over TOML over defaults."""

from pathlib import Path

import pytest

from entracte.cli.flags import given_settings
from entracte.cli.generate import build_request
from entracte.errors import RequestError
from entracte.settings.base import CONFIG_VARIABLE, read_settings
from entracte.settings.generate import GenerateSettings


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings.toml"
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    return path


def test_precedence(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('seed = 1\nheight = 256\nwidth = 320\nprompt = "from the file"')
    monkeypatch.setenv("ENTRACTE_SEED", "2")
    monkeypatch.setenv("ENTRACTE_HEIGHT", "512")
    settings = read_settings(GenerateSettings, {"seed": "3"})
    assert (settings.seed, settings.height, settings.width) == (3, 512, 320)
    assert settings.num_frames is None
    assert settings.prompt == "from the file"


def test_the_users_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "entracte").mkdir()
    (tmp_path / "entracte" / "config.toml").write_text("seed = 77")
    assert read_settings(GenerateSettings, {}).seed == 77


def test_lists_in_the_file_and_the_environment(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('image = [["a.png", 0, 1.0], ["b.png", 8, 0.5, 20]]')
    monkeypatch.setenv("ENTRACTE_LORA", '[["style.safetensors", 0.5]]')
    request = build_request(read_settings(GenerateSettings, {"prompt": "a"}))
    assert [(str(i.path), i.frame, i.strength, i.crf) for i in request.images] == [
        ("a.png", 0, 1.0, None),
        ("b.png", 8, 0.5, 20),
    ]
    assert request.loras[0].strength == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "is no TOML"),
        ("sead = 3", "unknown keys: sead"),
        ('seed = "many"', "seed: .*integer"),
    ],
)
def test_bad_files(toml: Path, text: str, message: str) -> None:
    toml.write_text(text)
    with pytest.raises(RequestError, match=message):
        read_settings(GenerateSettings, {})


def test_a_named_file_that_is_missing(toml: Path) -> None:
    with pytest.raises(RequestError, match="cannot read the settings file"):
        read_settings(GenerateSettings, {})


def test_a_bad_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTRACTE_IMAGE", "not json")
    with pytest.raises(RequestError, match="image: Input should be a valid list"):
        read_settings(GenerateSettings, {})


def test_every_setting_is_a_flag() -> None:
    import argparse

    from entracte.cli.flags import add_settings

    parser = argparse.ArgumentParser()
    add_settings(parser, GenerateSettings)
    assert given_settings(GenerateSettings, parser.parse_args([])) == {}
    text = parser.format_help()
    for name in GenerateSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
