"""Limits of a request, before anything is queued: sound, rates and LoRAs count as pixels do."""

from pathlib import Path
from typing import Any

import pytest

from entracte.serve.errors import RequestRefused
from entracte.serve.fields import VideoFields
from entracte.serve.http.errors import of_refused
from entracte.serve.submission import resolve

from .running import LTX_2_3, settings_for, small

LORAS = {f"style-{number}": Path(f"/loras/style-{number}.safetensors") for number in range(9)}


def lora(number: int, strength: float = 1.0) -> dict[str, Any]:
    return {"name": f"style-{number}", "strength": strength}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"fps": 0.1}, "seconds", "too_long"),
        ({"fps": 1, "num_frames": 65}, "seconds", "too_long"),
        ({"fps": 24, "num_frames": None, "seconds": 61}, "seconds", "too_long"),
        ({"loras": [lora(n) for n in range(9)]}, "loras", "too_many"),
        ({"loras": [lora(0)] * 2}, "loras", "given_twice"),
        ({"loras": [lora(0, 0.5), lora(1), lora(0, 0.7)]}, "loras", "given_twice"),
        ({"loras": [lora(0, 10.5)]}, "loras", "invalid_value"),
        ({"loras": [lora(0, -11)]}, "loras", "invalid_value"),
    ],
)
def test_too_much_is_refused(tmp_path: Path, fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        resolve(VideoFields(**small(**fields)), settings_for(tmp_path), LTX_2_3, LORAS)
    told = of_refused(refused.value)
    assert (told.status, told.param, told.code) == (400, param, code)


@pytest.mark.parametrize(
    "fields",
    [
        {"fps": 1, "num_frames": 57},
        {"fps": 240, "num_frames": 241},
        {"loras": [lora(n, 10 * (-1) ** n) for n in range(8)]},
    ],
)
def test_what_is_within_is_taken(tmp_path: Path, fields: dict[str, Any]) -> None:
    resolve(VideoFields(**small(**fields)), settings_for(tmp_path), LTX_2_3, LORAS)


def test_operators_move_the_limits(tmp_path: Path) -> None:
    more = settings_for(tmp_path, max_seconds=120, max_loras=9, max_lora_strength=50)
    fields = {"fps": 1, "num_frames": 113, "loras": [lora(n, 50) for n in range(9)]}
    resolve(VideoFields(**small(**fields)), more, LTX_2_3, LORAS)
