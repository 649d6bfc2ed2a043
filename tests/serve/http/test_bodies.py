"""Bodies: what they may cost before they are looked at, and the ways to say the same."""

import base64
import contextlib
import json
import secrets
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest

from entracte.serve.http.limits import LARGEST_AT_ONCE, LARGEST_OF_A_KEY, Bodies
from entracte.serve.strict_json import MOST_PARTS, GivenTwice, TooManyParts, parse

from ..fake_server import fake_server
from ..running import PATIENCE, Local, small
from .asking import PROMPT, error_of, png

KIND = {"content-type": "application/json"}
BOTH = pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/estimate"])


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": [' + b"{}," * MOST_PARTS + b"{}]}",
        b"[" + b"1," * MOST_PARTS + b"1]",
        b"[" * (MOST_PARTS + 1),
        "[" + "[]," * MOST_PARTS + "1]",
    ],
    ids=["objects", "numbers", "depth", "text"],
)
def test_json_of_too_many_parts_is_not_parsed(text: bytes | str) -> None:
    with pytest.raises(TooManyParts):
        parse(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"a": 1, "a": 1}', "a"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "b"),
        (r'{"a": 1, "\u0061": 2}', "a"),
        ("{" + ",".join(f'"{n % 40_000}": 1' for n in range(80_000)) + "}", "0"),
    ],
    ids=["plain", "nested", "escaped", "many"],
)
def test_a_field_that_is_given_twice_is_found(text: str, name: str) -> None:
    with pytest.raises(GivenTwice) as caught:
        parse(text)
    assert caught.value.name == name


@pytest.mark.slow
def test_large_json_costs_little_memory(tmp_path: Path) -> None:
    """60 MiB of `{},` would be 2 GB of objects."""
    with fake_server(tmp_path / "data") as server:
        headers = {"Authorization": f"Bearer {server.key}", **KIND}
        before = _peak_bytes(server.process.pid)
        body = b'{"prompt": [' + b"{}," * (20 * 2**20) + b"{}]}"
        answer = httpx2.post(
            f"{server.url}/v1/videos", content=body, headers=headers, timeout=PATIENCE
        )
        error_of(answer, 400, "too_many")
        assert _peak_bytes(server.process.pid) - before < 6 * len(body)


def _peak_bytes(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the system does not tell")


def test_bodies_share_memory_by_key() -> None:
    bodies = Bodies(100)
    assert all(bodies.take("ann", 100) for _ in range(LARGEST_OF_A_KEY))
    assert not bodies.take("ann", 1)
    keys = [f"key{n // LARGEST_OF_A_KEY}" for n in range(LARGEST_AT_ONCE - LARGEST_OF_A_KEY)]
    assert all(bodies.take(key, 100) for key in keys)
    assert not bodies.take("zoe", 1)
    bodies.free("ann", 100)
    assert bodies.take("zoe", 100)
    assert not bodies.take("ann", 1)


def test_large_bodies_of_a_key_are_so_many_at_once(shared: Local) -> None:
    """What is announced counts, though nothing of it has come; another key has its own share."""
    _, other = shared.service.keys.add(f"other {secrets.token_hex(8)}")
    port = int(shared.url.rpartition(":")[2])
    length = shared.service.settings.max_body_bytes

    def begin(held: contextlib.ExitStack, key: str) -> socket.socket:
        connection = held.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        head = (
            f"POST /v1/videos HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n"
            "Expect: 100-continue\r\n\r\n"
        )
        connection.sendall(head.encode())
        return connection

    with contextlib.ExitStack() as held:
        for _ in range(LARGEST_OF_A_KEY):
            assert begin(held, shared.key).recv(12) == b"HTTP/1.1 100"  # the body is wanted
        refused = begin(held, shared.key).recv(65536)
        assert refused.startswith(b"HTTP/1.1 429")
        assert b"retry-after" in refused.lower()
        assert begin(held, other).recv(12) == b"HTTP/1.1 100"
        assert shared.client.post("/v1/videos/estimate", json=small()).status_code == 200


@BOTH
def test_a_byte_order_mark_is_no_mistake(shared: Local, path: str) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(small(PROMPT)).encode()
    assert shared.client.post(path, content=body, headers=KIND).status_code == 200


@BOTH
def test_a_field_given_twice_is_refused_as_in_forms(shared: Local, path: str) -> None:
    body = b'{"prompt": "A street", "seed": 1, "seed": 2}'
    answer = shared.client.post(path, content=body, headers=KIND)
    error_of(answer, 400, "given_twice", "seed")
    form = shared.client.post("/v1/videos", data={"prompt": "A street", "seed": ["1", "2"]})
    error_of(form, 400, "given_twice", "seed")


@pytest.mark.parametrize(
    "charset", ["punycode", "undefined", "idna", "utf-7", "utf-16", "base64", "rot13", "zlib", "x"]
)
def test_a_form_in_another_charset_is_refused(shared: Local, charset: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xe9 street\r\n--b--\r\n'
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    answer = shared.client.post("/v1/videos", content=body, headers={"content-type": kind})
    error_of(answer, 400, "invalid_form")


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "us-ascii"])
def test_a_form_may_say_that_it_is_unicode(shared: Local, charset: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'
    kind = f"multipart/form-data; charset={charset}; boundary=b"
    answer = shared.client.post("/v1/videos", content=body, headers={"content-type": kind})
    error_of(answer, 400, "missing_field", "prompt")


@BOTH
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "1٤x64"),
        ("size", "64x٦٤"),
        ("num_frames", "٩"),
        ("seconds", "٠.٣"),
        ("fps", "２４"),
        ("guidance_scale", "２"),
        ("video_rescale_scale", "٠.٣"),
        ("images", '[{"strength": "١"}]'),
        ("seed", "१"),
        ("prompt", "\0"),
        ("prompt", "\u200b\u200d\ufeff"),
        ("prompt", "\0 \u2060\n\u00ad"),
        ("prompt", "\u3164\u2800"),
        ("prompt", "\u0301\ufe0f"),
        ("prompt", "\u202e\u2066"),
    ],
)
def test_digits_are_ascii_and_prompts_are_seen(
    shared: Local, path: str, name: str, value: str
) -> None:
    answer = shared.client.post(path, json=small() | {name: value})
    error_of(answer, 400, "invalid_value", name)


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        {"size": "128X64"},
        {"prompt": "日本の通り"},
        {"prompt": "🎬"},
        {"prompt": "."},
        {"prompt": "\u200bA street"},
    ],
)
def test_what_people_write_is_understood(shared: Local, path: str, fields: dict[str, Any]) -> None:
    assert shared.client.post(path, json=small() | fields).status_code == 200


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


PICTURE = png((32, 32), "red")
PICTURES: dict[str, Any] = {
    "data URL": data_url(PICTURE),
    "bare base64": base64.b64encode(PICTURE).decode(),
    "image_url": {"image_url": data_url(PICTURE)},
    "chat style": {"type": "image_url", "image_url": {"url": data_url(PICTURE)}},
    "chat style with detail": {"image_url": {"url": data_url(PICTURE), "detail": "high"}},
    "a list of one": [{"image_url": data_url(PICTURE)}],
    "an object as text": json.dumps({"image_url": data_url(PICTURE)}),
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_understood_as_clients_send_it(shared: Local, picture: Any) -> None:
    for field in ({"input_reference": picture}, {"images": [{"image": picture}]}):
        answer = shared.client.post("/v1/videos", json=small() | field)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["images"]) == 1


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        ({"file_id": "file-abc123"}, "no files are kept here"),
        ({"type": "input_image"}, "must be a data URL"),
        ([], "must be a data URL"),
        (7, "must be a data URL"),
        ([data_url(PICTURE)] * 2, "must be a data URL"),
        ("picture.png", "no filename is no file"),
        ("/etc/passwd", "no filename is no file"),
        ("", "no filename is no file"),
    ],
    ids=str,
)
def test_what_is_no_picture_is_told_why(shared: Local, picture: Any, words: str) -> None:
    answer = shared.client.post("/v1/videos", json=small() | {"input_reference": picture})
    error = error_of(answer, 400, param="input_reference")
    assert error["message"].startswith("input_reference: ")
    assert words in error["message"]
    assert "str" not in error["message"].replace("street", "")


def test_a_part_without_a_filename_is_told_what_it_lacks(shared: Local) -> None:
    fields = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in small().items()
    )
    part = b'--b\r\nContent-Disposition: form-data; name="input_reference"\r\n'
    body = fields.encode() + part + b"Content-Type: image/png\r\n\r\n" + PICTURE + b"\r\n--b--\r\n"
    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = shared.client.post("/v1/videos", content=body, headers=kind)
    error = error_of(answer, 400, param="input_reference")
    assert "no filename" in error["message"]


def test_the_same_request_may_be_written_differently(shared: Local) -> None:
    key = {"Idempotency-Key": secrets.token_hex(8)}
    plain = {"prompt": "A street", "size": "64x64", "seed": 3}
    first = shared.client.post("/v1/videos", json=plain | {"seconds": 0.3}, headers=key)
    for again in (
        shared.client.post("/v1/videos", json={"seconds": "0.3"} | plain, headers=key),
        shared.client.post("/v1/videos", json=plain | {"seconds": "0.30"}, headers=key),
        shared.client.post("/v1/videos", data=plain | {"seconds": "0.3"}, headers=key),
        shared.client.post(
            "/v1/videos", json=plain | {"seconds": 0.3, "fps": None, "loras": None}, headers=key
        ),
    ):
        assert again.status_code == 200
        assert again.json()["id"] == first.json()["id"]
    for other in ({"seconds": 0.5}, {"seconds": 0.3, "input_reference": data_url(PICTURE)}):
        answer = shared.client.post("/v1/videos", json=plain | other, headers=key)
        error_of(answer, 422, "idempotency_key_reused")


def test_an_empty_idempotency_key_is_none(shared: Local) -> None:
    empty = {"Idempotency-Key": ""}
    ids = {
        shared.client.post("/v1/videos", json=small(seed=seed), headers=empty).json()["id"]
        for seed in (1, 1, 2)
    }
    assert len(ids) == 3


def test_what_pictures_take_on_the_disk_is_known(shared: Local) -> None:
    images = [{"image": data_url(PICTURE)}, {"image": data_url(PICTURE), "frame": 8}]
    video = shared.create(images=images)["id"]
    job = shared.service.store.find(video)
    assert job is not None
    sizes = [shared.service.folder.image(video, number).stat().st_size for number in range(2)]
    assert job.input_bytes == sum(sizes) > 0
