"""A request's fields are declared once, and offered everywhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import entracte
from entracte import Guidance, Request
from entracte.cli.flags import flags_of
from entracte.conditions import KINDS
from entracte.config.generate import GenerateSettings
from entracte.recipes import GuidanceOverrides
from entracte.request import RequestOptions
from entracte.request_fields import (
    PARTS,
    GuidanceFields,
    RequestFields,
    arguments_from,
    http_name,
    offer_of,
    values_from,
)
from entracte.serve.fields import VideoFields

PACKAGE = Path(entracte.__file__).parent

# Fields of a Request that flags and HTTP spell in their own way.
OTHERWISE = {
    "seconds": "HTTP clients give it as text, with a default of the service's",
    "conditions": "each kind has a flag of its own; over HTTP they are files, too",
    "loras": "--lora is a list of values; HTTP clients know a LoRA by its name, not its path",
    "video_guidance": "an object in Python, flat elsewhere: GuidanceFields",
    "audio_guidance": "an object in Python, flat elsewhere: GuidanceFields",
    "output_height": "follows from a height that cannot be rendered",
    "output_width": "follows from a width that cannot be rendered",
}


def test_every_field_is_offered_everywhere_or_an_exception() -> None:
    assert Request.model_fields.keys() == RequestFields.model_fields.keys() | OTHERWISE
    flat = RequestFields.model_fields | GuidanceFields.model_fields
    names = {http_name(name) for name in flat}
    body = VideoFields.model_json_schema()["properties"]
    assert flat.keys() <= GenerateSettings.model_fields.keys()
    assert names <= body.keys()
    for name, field in flat.items():
        offer = offer_of(field)
        assert offer is not None, name
        assert flags_of(GenerateSettings)[name].group == offer.group != "", name
        assert field.description, name
        assert body[http_name(name)]["description"] == field.description, name


def test_the_page_has_a_control_for_every_field() -> None:
    page = (PACKAGE / "serve" / "page" / "index.html").read_text()
    placed = set(re.findall(r'(?:name|value)="(\w+)"', page))
    for name, field in VideoFields.model_fields.items():
        offer = offer_of(field)
        if offer is not None and not offer.label:
            assert http_name(name) in placed, name


def test_the_typed_signature_has_every_field() -> None:
    by_kind = {kind.field for kind in KINDS.values()}
    short = {"size", "image"}
    fields = Request.model_fields.keys() - {"prompt"}
    assert RequestOptions.__annotations__.keys() == fields | by_kind | short


def test_guidance_is_flat_and_back() -> None:
    values = {name: [3] if name.endswith("blocks") else 0.25 for name in PARTS}
    whole = {"cfg": 0.25, "stg": 0.25, "stg_blocks": (3,), "modality": 0.25, "rescale": 0.25}
    arguments = arguments_from(values | {"preview": True, "seed": None})
    assert arguments == {
        "video_guidance": GuidanceOverrides(**whole),
        "audio_guidance": GuidanceOverrides(**whole),
    }
    back = values_from(Guidance(**whole), Guidance(**whole))
    assert back == values | {name: (3,) for name in PARTS if "blocks" in name}
    one = arguments_from({"a2v_guidance_scale": 2.0, "audio_stg_blocks": [1, 2]})
    assert one == {
        "video_guidance": GuidanceOverrides(modality=2.0),
        "audio_guidance": GuidanceOverrides(stg_blocks=(1, 2)),
    }


# What a new field of a request takes, beside its use.
DECLARATION = """
    motion: Annotated[
        float | None,
        Field(ge=0, le=2, allow_inf_nan=False, description="How much moves."),
        Offer("request", "X", http="movement", label="Movement", step=0.1),
    ] = None
"""

FINDINGS = """
import json, sys
from pydantic import ValidationError
from entracte.checkpoints.model_header import ModelHeader
from entracte.cli.flags import given_settings
from entracte.cli.generate import add_parser
from entracte.cli.orders import build_request
from entracte.cli.parser import Parser
from entracte.config.generate import GenerateSettings
from entracte.config.reading import read_settings
from entracte.config.serve import ServeSettings
from entracte.request import Request
from entracte.serve.fields import VideoFields
from entracte.serve.http.openapi import video_body
from entracte.serve.http.serializers import field_list
from entracte.serve.submission import request_of, resolve

def of_command(*flags):
    parser = Parser(prog="entracte")
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["generate", "--prompt", "A street", *flags])
    settings = read_settings(GenerateSettings, given_settings(GenerateSettings, options))
    return build_request(settings).motion

def refused(**fields):
    try:
        VideoFields(prompt="A street", **fields)
    except ValidationError as error:
        return [[*each["loc"], each["type"]] for each in error.errors()]

service = ServeSettings()
model = ModelHeader("2.3", layers=48)
submission = resolve(VideoFields(prompt="A street", movement="1.5"), service, model, {})
print(json.dumps({
    "flag": of_command("--motion", "0.5"),
    "variable": of_command(),
    "library": Request("A street", motion=0.75).motion,
    "kept": submission.settings["movement"],
    "made": request_of("A street", submission.settings, {}).motion,
    "refused": [refused(movement=3), refused(movement="\\u0661"), refused(motion=1)],
    "schema": video_body()["requestBody"]["content"]["application/json"]["schema"]
        ["properties"]["movement"],
    "page": next(
        each.model_dump() for each in field_list(service).data if each.id == "movement"
    ),
    "torch": "torch" in sys.modules,
}))
"""


@pytest.fixture
def with_a_field(tmp_path: Path) -> Path:
    """A copy of the package with one declaration more."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / "entracte", ignore=ignored)
    path = tmp_path / "entracte" / "request_fields.py"
    before, marker, after = path.read_text().partition("    seed: Annotated[")
    path.write_text(before + DECLARATION.lstrip("\n") + marker + after)
    return tmp_path


def test_a_new_field_is_one_declaration(with_a_field: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FINDINGS],
        env=os.environ | {"PYTHONPATH": str(with_a_field), "ENTRACTE_MOTION": "0.25"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["flag"], found["variable"], found["library"]) == (0.5, 0.25, 0.75)
    assert found["kept"] == found["made"] == 1.5
    assert found["refused"] == [
        [["movement", "less_than_equal"]],
        [["movement", "value_error"]],
        [["motion", "extra_forbidden"]],
    ]
    number, null = found["schema"]["anyOf"]
    assert number == {"type": "number", "minimum": 0, "maximum": 2}
    assert null == {"type": "null"}
    assert found["schema"]["description"] == "How much moves."
    wanted = {"label": "Movement", "type": "number", "minimum": 0, "maximum": 2, "step": 0.1}
    assert wanted.items() <= found["page"].items()
    assert found["torch"] is False
