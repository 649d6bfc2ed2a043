"""Flags over environment over TOML over defaults."""

from pathlib import Path

import pytest

from entracte.cli.flags import given_settings
from entracte.cli.orders import build_request
from entracte.config.base import Settings
from entracte.config.generate import GenerateSettings
from entracte.config.reading import read_settings
from entracte.config.residency import build_residency
from entracte.config.serve import ServeSettings
from entracte.config.sources import CONFIG_VARIABLE
from entracte.errors import RequestError


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings.toml"
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    return path


def use(settings: GenerateSettings) -> None:
    """What a command makes of settings before it opens anything."""
    build_residency(settings)
    build_request(settings)


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


def test_what_no_version_can_make_is_refused_before_a_model_is_opened() -> None:
    settings = read_settings(GenerateSettings, {"prompt": "a", "image": [["a.png", 121]]})
    with pytest.raises(RequestError, match="--image: frame 121 is outside the video"):
        build_request(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "is not TOML"),
        ("sead = 3", "unknown keys: sead; did you mean seed?"),
        ("[serve]\nprot = 1", "unknown keys: serve.prot; did you mean serve.port?"),
        ("serve = 3", r"serve is a table, \[serve\]"),
        ('seed = "many"', "seed in the settings file: must be a whole number, not 'many'"),
        ("seed = 1.5", "seed in the settings file: must be a whole number, not 1.5"),
        ("seed = nan", "seed in the settings file: must be a"),
        (f"seed = {'9' * 5000}", "is not TOML"),
        (f"seed = 0x{'f' * 5000}", "seed in the settings file: must be at most"),
        (f"seed = {'[' * 5000}{']' * 5000}", "is nested too deeply"),
        ("prompt = 3", "prompt in the settings file: must be text, not 3"),
        ("truncate_prompt = 7", "truncate_prompt in the settings file: must be true or false"),
        ('image = "a.png"', "image in the settings file: must be a list"),
        ("image = [[]]", "--image takes PATH"),
        ("image = [[3]]", "--image 3: path: must be a path"),
        ('image = [["a", [0]]]', "image in the settings file: must be a number or a word"),
        ("lora = [[3, 1]]", r"--lora takes PATH \[STRENGTH\]; 3 is not a path"),
        ('lora = [["a", inf]]', "--lora: the strength must be a number, not inf"),
        (f'lora = [["a", 0x{"f" * 5000}]]', "--lora: the strength must be a number"),
        ("host_memory = -1", "--host-memory takes a size such as 24GiB or 24GB, not -1"),
        ("host_memory = inf", "--host-memory takes a size"),
        ("host_memory = true", "host_memory in the settings file: must be a number or a word"),
        (f'host_memory = "{"9" * 400}"', "--host-memory takes a size"),
        ('place = ["here"]', "--place takes NAME=PLACE"),
        (r'model = "a\u0000b"', "model in the settings file: has a NUL character"),
        ("a" * 1_000_001, "is larger than 1,000,000 bytes"),
    ],
    ids=lambda value: value[:30],
)
def test_bad_files(toml: Path, text: str, message: str) -> None:
    toml.write_text(text)
    with pytest.raises(RequestError, match=message):
        use(read_settings(GenerateSettings, {} if text.startswith("prompt") else {"prompt": "a"}))


def test_bytes_that_are_no_text(toml: Path) -> None:
    toml.write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="is not TOML"):
        read_settings(GenerateSettings, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_name = []", "model_name in the settings file: must not be empty"),
        ('model_name = [""]', "model_name in the settings file: must not be empty"),
        ('devices = "cpu"', "devices in the settings file: must be a list, not 'cpu'"),
        ('host = ""', "host in the settings file: must not be empty"),
        ("port = -1", "port in the settings file: must be at least 0, not -1"),
        ("keep_days = nan", "keep_days in the settings file: must be more than 0"),
        ("default_seconds = inf", "default_seconds in the settings file: must be at most 3600"),
        ("drain_seconds = inf", "drain_seconds in the settings file: must be a finite number"),
        ('default_size = "1٤x64"', "default_size in the settings file: must be a size such as"),
    ],
)
def test_bad_settings_of_a_service(toml: Path, text: str, message: str) -> None:
    toml.write_text(f"[serve]\n{text}")
    with pytest.raises(RequestError, match=message):
        read_settings(ServeSettings, {})


@pytest.mark.parametrize("kind", [GenerateSettings, ServeSettings])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ENTRACTE_SEDE", "ENTRACTE_SEDE, which is not a setting; did you mean ENTRACTE_SEED?"),
        ("entracte_xyzzy", "ENTRACTE_XYZZY, which is not a setting"),
    ],
)
def test_unknown_variables(
    monkeypatch: pytest.MonkeyPatch, kind: type[Settings], name: str, message: str
) -> None:
    monkeypatch.setenv(name, "3")
    with pytest.raises(RequestError, match=message):
        read_settings(kind, {})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SEED", "three", "ENTRACTE_SEED: must be a whole number, not 'three'"),
        ("IMAGE", "not json", "ENTRACTE_IMAGE: must be a list in JSON"),
        ("IMAGE", "[" * 5000, "ENTRACTE_IMAGE: must be a list in JSON"),
        ("DEVICES", "cpu", r"ENTRACTE_DEVICES: must be a list in JSON, .*, not 'cpu'"),
        ("DEVICES", '{"a": 1}', "ENTRACTE_DEVICES: must be a list"),
        ("DEVICES", "9" * 5000, "ENTRACTE_DEVICES: must be a list in JSON"),
        ("MODEL_NAME", "[]", "ENTRACTE_MODEL_NAME: must not be empty"),
    ],
    ids=lambda value: value[:30],
)
def test_bad_variables(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"ENTRACTE_{name}", value)
    kinds: list[type[Settings]] = [GenerateSettings, ServeSettings]
    for kind in kinds:
        if name.lower() in kind.model_fields:
            with pytest.raises(RequestError, match=message):
                read_settings(kind, {})
        else:
            read_settings(kind, {})


def test_variables_that_are_no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENTRACTE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("ENTRACTE_KEY", "ek-secret")
    assert read_settings(GenerateSettings, {}).seed is None


def test_flags_are_named_as_they_are_given() -> None:
    flags = {"height": "abc", "video_stg_blocks": ["1", "x"], "mode": "fast"}
    with pytest.raises(RequestError) as refused:
        read_settings(GenerateSettings, flags)
    first, *rest = sorted(str(refused.value).splitlines())
    assert first == "--height: must be a whole number, not 'abc'"
    assert [line.partition(":")[0] for line in rest] == ["--mode", "--video-stg-blocks"]


def test_a_named_file_that_is_missing(toml: Path) -> None:
    with pytest.raises(RequestError, match="cannot read the settings file"):
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
