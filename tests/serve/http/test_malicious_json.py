"""JSON that is none, or of what no field can be."""

import json
import time
from statistics import median

import pytest

from entracte.serve.http.read_body import MAX_FIELDS

from ..running import Local, small
from .asking import PROMPT, error_of

KIND = {"content-type": "application/json"}
TOO_MUCH = ("too_long", "too_large", "too_many", "too_many_steps")
BOTH = pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/estimate"])


def with_field(name: str, value: str) -> bytes:
    """The JSON of a small video with a field as it is written."""
    others = {key: told for key, told in small(PROMPT).items() if key != name}
    return json.dumps(others).encode()[:-1] + f', "{name}": {value}}}'.encode()


@pytest.fixture(scope="module")
def seconds_of_long_text(shared: Local) -> float:
    """What this machine computes to refuse a prompt of 300,000 characters, which is read once."""
    body, took = with_field("prompt", f'"{"x" * 300_000}"'), []
    for _ in range(5):
        began = time.process_time()
        error_of(shared.client.post("/v1/videos", content=body, headers=KIND), 400, "too_long")
        took.append(time.process_time() - began)
    return median(took)


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"1",
        b'"text"',
        b"[]",
        b'[{"prompt": "A street"}]',
        b"{",
        b'{"prompt": "A street",}',
        b'{"prompt": "A street"} {}',
        b"\x00",
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\xc0\xaf"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "A street", "negative_prompt": "\\uDFFF"}',
        b'{"\\ud800": 1}',
        '{"prompt": "A street"}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"prompt": "A street", "seconds": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_json_object_is_refused(attacked: Local, path: str, body: bytes) -> None:
    answer = attacked.client.post(path, content=body, headers=KIND)
    error_of(answer, 400, "invalid_json")


@BOTH
@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(attacked: Local, path: str, word: str) -> None:
    body = with_field("guidance_scale", word)
    error_of(attacked.client.post(path, content=body, headers=KIND), 400, "invalid_json")


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seconds", "1e999"),
        ("seconds", "-1"),
        ("seconds", "0"),
        ("seconds", "9" * 4000),
        ("seconds", "true, 1"),
        ("fps", "1e999"),
        ("fps", "5e-324"),
        ("fps", "1e-300"),
        ("fps", "1e-3"),
        ("fps", "9" * 400),
        ("seed", "-1"),
        ("seed", str(2**64)),
        ("seed", "9" * 4000),
        ("seed", "1.5"),
        ("num_frames", "10"),
        ("num_frames", "9" * 30),
        ("num_inference_steps", "501"),
        ("width", "9" * 30),
        ("guidance_scale", "1e999"),
        ("guidance_scale", "101"),
        ("video_rescale_scale", "2"),
        ("guidance_batch", "5"),
        ("video_stg_blocks", f"[{10**30}]"),
        ("video_stg_blocks", f"[{'1,' * 100_000}1]"),
        ("video_stg_blocks", '{"a": 1}'),
        ("size", '"0x64"'),
        ("size", '"64"'),
        ("size", '"99999x99999"'),
        ("size", '"64x64\\u0000"'),
        ("size", '"-64x-64"'),
        ("size", "[64, 64]"),
        ("prompt", '""'),
        ("prompt", '" \\n "'),
        ("prompt", '["A street"]'),
        ("prompt", f'"{"x" * 10_001}"'),
        ("negative_prompt", f'"{"x" * 10_001}"'),
        ("pipeline", '"../two-stage"'),
        ("loras", "{}"),
        ("loras", '[{"name": "style", "path": "/etc/passwd"}]'),
        ("images", f"[{'{},' * 100_000}{{}}]"),
        ("images", '"' + "[" * 100_000 + '"'),
        ("images", '[{"image": "data:image/png;base64,AA==", "frame": -1}]'),
        ("input_reference", "7"),
        ("webhook_url", f'"https://example.com/{"x" * 2000}"'),
    ],
    ids=lambda text: text[:16],
)
def test_values_out_of_bounds_are_refused_by_name(
    attacked: Local, path: str, name: str, value: str, seconds_of_long_text: float
) -> None:
    began = time.process_time()  # the server is in this process
    answer = attacked.client.post(path, content=with_field(name, value), headers=KIND)
    took = time.process_time() - began
    error = error_of(answer, 400)
    assert took < 50 * seconds_of_long_text
    assert error["code"] in ("invalid_value", "invalid_json", "unknown_field", *TOO_MUCH)
    if error["code"] not in ("invalid_json", "too_many"):
        other = {"width": "height", "loras": "path"}
        assert error["param"] in (name, other.get(name))


@pytest.mark.sampled(1)
@BOTH
def test_hundreds_of_thousands_of_fields_are_not_looked_at(attacked: Local, path: str) -> None:
    body = json.dumps(dict.fromkeys(map(str, range(300_000)), 1))
    error_of(attacked.client.post(path, content=body, headers=KIND), 400, "too_many")
    few = json.dumps(dict.fromkeys(map(str, range(MAX_FIELDS)), 1))
    error_of(attacked.client.post(path, content=few, headers=KIND), 400, "missing_field")


def test_a_name_of_a_field_is_told_back_no_longer_than_it_needs_to_be(attacked: Local) -> None:
    body = json.dumps(small(PROMPT) | {"x" * 100_000: 1})
    answer = attacked.client.post("/v1/videos", content=body, headers=KIND)
    error_of(answer, 400, "unknown_field", "x" * 100)
    assert len(answer.content) < 1000


def test_a_zero_byte_in_a_prompt_is_kept_as_it_is(attacked: Local) -> None:
    video = attacked.create(f"{PROMPT}\0and after it")
    assert attacked.ended(video["id"])["prompt"] == f"{PROMPT}\0and after it"
    error_of(attacked.client.post("/v1/videos", json=small(model="ltx-2.3\0")), 404)


def test_a_key_that_is_no_text_signs_nobody_in(attacked: Local) -> None:
    for key in (b"7", b"null", b"[]", b'{"$ne": ""}'):
        answer = attacked.client.post("/session", content=b'{"key": ' + key + b"}", headers=KIND)
        error_of(answer, 400, param="key")
    error_of(attacked.client.post("/session", json={}), 400, "missing_field", "key")
