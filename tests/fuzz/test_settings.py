"""Settings files: whatever bytes are in one, it is read or refused in our words."""

from pathlib import Path

import pytest

from entracte.cli.orders import build_request
from entracte.config.generate import GenerateSettings
from entracte.config.reading import read_settings
from entracte.config.residency import build_residency, parse_size
from entracte.config.serve import ServeSettings
from entracte.config.sources import CONFIG_VARIABLE
from entracte.errors import EntracteError
from entracte.serve.server import check

from .mutate import fuzz

pytestmark = pytest.mark.slow

SEEDS = (
    b'prompt = "A street"\nseed = 3\nheight = 128\nwidth = 128\nnum_frames = 9\n'
    b'image = [["a.png", 0, 1.0], ["b.png", 8, 0.5, 20]]\nlora = [["style", 0.5]]\n'
    b'mode = "fused"\nresident_blocks = 3\nplace = ["text_encoder=disk"]\n'
    b'device_memory = "24GiB"\nhost_memory = 1e10\nvideo_stg_blocks = [1, 2]\n',
    b'distilled_lora = ["a.safetensors", 0.8]\nframe_rate = 23.976\nvideo_cfg_guidance_scale = 2\n'
    b'[serve]\nport = 8000\nmodel_name = ["a", "b"]\ndevices = ["cpu"]\nkeep_days = inf\n'
    b'default_size = "1280x720"\ndefault_seconds = 4.5\nkeep_size = "10GiB"\n',
)

TOKENS = (
    b"nan", b"inf", b"-inf", b"true", b"0x" + b"f" * 5000, b"9" * 5000, b"1979-05-27", b"[[a]]",
    b'"""', b'"\\u0000"', b"\n[serve]\n", b"[" * 3000, b"a." * 3000 + b"b = 1",
)  # fmt: skip


def test_settings_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.toml"
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        generate = read_settings(GenerateSettings, {})
        build_residency(generate)
        if generate.prompt is not None:
            build_request(generate)
        serve = read_settings(ServeSettings, {})
        check(serve)
        parse_size("keep_size", serve.keep_size)

    fuzz(read, SEEDS, (EntracteError,), TOKENS)
