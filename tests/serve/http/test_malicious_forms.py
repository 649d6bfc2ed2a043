"""Forms that do not end, have too much in them, or are damaged."""

from collections.abc import Iterator

import pytest

from entracte.serve.http.read_body import MAX_FIELDS

from ..running import Local, small
from .asking import PROMPT, error_of, png

KIND = {"content-type": "multipart/form-data; boundary=b"}
FORM = {name: str(value) for name, value in small(PROMPT).items()}


def part(name: str, value: str) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def whole(*parts: bytes) -> bytes:
    return b"".join([*parts, *(part(name, value) for name, value in FORM.items()), b"--b--\r\n"])


def test_a_form_that_does_not_end_is_refused(attacked: Local) -> None:
    for kind in ("field", "file"):

        def parts(kind: str = kind) -> Iterator[bytes]:
            file = "" if kind == "field" else '; filename="a.png"'
            for number in range(100_000):
                head = f'Content-Disposition: form-data; name="{kind}{number}"{file}'
                yield f"--b\r\n{head}\r\n\r\nx\r\n".encode()

        content = b"".join(parts())
        answer = attacked.client.post("/v1/videos", content=content, headers=KIND)
        error_of(answer, 400, "invalid_form")


def test_a_million_fields_are_refused(attacked: Local) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    fields = "&".join(f"f{number}=1" for number in range(1_000_000))
    answer = attacked.client.post("/v1/videos", content=fields, headers=kind)
    error_of(answer, 400, "invalid_form")
    few = "&".join(f"f{number}=1" for number in range(MAX_FIELDS))
    answer = attacked.client.post("/v1/videos", content=few, headers=kind)
    error_of(answer, 400, "missing_field", "prompt")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b--",
        b"--c\r\n\r\n--c--\r\n",
        b"no part at all",
        b"--b\r\n\r\n\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"X: y\r\n" * 100_000 + b"\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"X" * 1_000_000 + b": y\r\n\r\nx\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nnot ended',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_damaged_form_is_refused(attacked: Local, body: bytes) -> None:
    answer = attacked.client.post("/v1/videos", content=body, headers=KIND)
    error = error_of(answer, 400)
    assert error["code"] in ("invalid_form", "missing_field", "unknown_field")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_refused(attacked: Local, kind: str) -> None:
    answer = attacked.client.post("/v1/videos", content=whole(), headers={"content-type": kind})
    error_of(answer, 400)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/mixed", "", "json"])
def test_what_is_neither_form_nor_json_is_refused(attacked: Local, kind: str) -> None:
    answer = attacked.client.post("/v1/videos", content=whole(), headers={"content-type": kind})
    error_of(answer, 415, "unsupported_media_type")


def test_bytes_that_are_no_utf_8_are_not_guessed_at_in_names(attacked: Local) -> None:
    strange = b'--b\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\nx\r\n'
    answer = attacked.client.post("/v1/videos", content=whole(strange), headers=KIND)
    error_of(answer, 400, "unknown_field")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seconds", "NaN"),
        ("seconds", "inf"),
        ("seconds", "1e999"),
        ("fps", "-inf"),
        ("fps", "nan"),
        ("guidance_scale", "nan"),
        ("seed", "9" * 5000),
        ("seed", "0x10"),
        ("num_frames", "9.5"),
        ("preview", "perhaps"),
        ("loras", '[{"name": "style", "strength": NaN}]'),
        ("loras", "[" * 100_000),
        ("loras", '{"a":' * 100_000),
        ("images", '[{"strength": Infinity}]'),
        ("images", '[{"frame": 1e999}]'),
        ("images", "["),
        ("video_stg_blocks", "[" + "9" * 5000 + "]"),
    ],
    ids=lambda text: text[:16],
)
def test_values_out_of_bounds_are_refused_by_name(attacked: Local, name: str, value: str) -> None:
    answer = attacked.client.post("/v1/videos", data=FORM | {name: value})
    error_of(answer, 400, "invalid_value", name)


def test_a_field_twice_is_refused(attacked: Local) -> None:
    answer = attacked.client.post(
        "/v1/videos", content=whole(part("prompt", "Another")), headers=KIND
    )
    error_of(answer, 400, "given_twice", "prompt")


def test_a_file_under_another_name_is_refused(attacked: Local) -> None:
    for name in ("file", "prompt", "images", "input_reference[0]"):
        answer = attacked.client.post(
            "/v1/videos", data=FORM, files={name: ("a.png", png(), "image/png")}
        )
        error_of(answer, 400, param=name)
