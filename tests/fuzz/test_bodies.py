"""Damaged bodies of requests: every answer is ours, in one form, and blames the client."""

import base64
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from entracte.serve.http.app import make_app
from entracte.serve.logs import open_log
from entracte.serve.service import Service

from ..serve.fake_runner import OpenFake
from ..serve.http.asking import png
from ..serve.running import LTX_2_3, settings_for, small
from .mutate import fuzz

pytestmark = pytest.mark.slow

PICTURE = png((4, 4))
FIELDS = small(
    loras=[{"name": "style", "strength": 0.5}],
    video_stg_blocks=[1, 2],
    guidance_scale=2.5,
    seconds="0.3",
    webhook_url="https://hooks.example.com/x",
    preview=True,
)
JSON = [
    json.dumps(FIELDS).encode(),
    json.dumps(small(input_reference=base64.b64encode(PICTURE).decode())).encode(),
    json.dumps(small(images=[{"image": {"image_url": "data:image/png;base64,AA=="}}])).encode(),
]
FORM = [
    b"".join(
        [
            *(
                b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
                % (name.encode(), (value if isinstance(value, str) else json.dumps(value)).encode())
                for name, value in small(images=[{"frame": 8}], seed=3).items()
            ),
            b'--b\r\nContent-Disposition: form-data; name="input_reference"; filename="a.png"\r\n',
            b"Content-Type: image/png\r\n\r\n" + PICTURE + b"\r\n--b--\r\n",
        ]
    )
]
TOKENS = (
    b"--b", b"--b--\r\n", b'Content-Disposition: form-data; name="', b"filename*=utf-8''%FF",
    b'"input_reference": ', b"data:;base64,", b"file_id", b"\\ud800", b"\\u0000", b"\xe2\x80\x8b",
    b"[[", b"}}", b",,", b"1e309", b"-0", b'"prompt"', b"Content-Transfer-Encoding: base64\r\n",
)  # fmt: skip


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """Of the application in this process, with a queue that is soon full."""
    settings = settings_for(tmp_path / "data", max_queued=20, auth="off")
    service = Service(settings, LTX_2_3, lambda _: OpenFake(), open_log("json", StringIO()))
    with TestClient(make_app(service), "http://127.0.0.1") as client:
        yield client


def require_ours(answer: httpx2.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert 0 < len(error["message"]) < 1000
        assert "Traceback" not in error["message"]


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/estimate", "/session"])
def test_json(client: TestClient, path: str) -> None:
    def read(data: bytes) -> None:
        kind = {"content-type": "application/json"}
        require_ours(client.post(path, content=data, headers=kind))

    fuzz(read, [*JSON, b'{"key": "ek-x"}'], (), TOKENS)


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=b", "multipart/form-data"])
def test_forms(client: TestClient, kind: str) -> None:
    def read(data: bytes) -> None:
        require_ours(client.post("/v1/videos", content=data, headers={"content-type": kind}))

    fuzz(read, FORM, (), TOKENS)


def test_forms_of_the_other_kind(client: TestClient) -> None:
    def read(data: bytes) -> None:
        kind = {"content-type": "application/x-www-form-urlencoded"}
        require_ours(client.post("/v1/videos", content=data, headers=kind))

    fuzz(read, [b"prompt=A+street&size=64x64&num_frames=9&seconds=%30.3"], (), (b"%ff", b"&", b"%"))


def test_content_types(client: TestClient) -> None:
    def read(data: bytes) -> None:
        kind = data.decode("latin-1").replace("\r", "").replace("\n", "").replace("\0", "").strip()
        headers = {"content-type": kind.encode("latin-1")}
        require_ours(client.post("/v1/videos", content=FORM[0], headers=headers))

    seeds = [b"multipart/form-data; boundary=b; charset=utf-8", b"application/json; charset=utf-8"]
    fuzz(read, seeds, (), (b"charset=", b"punycode", b"boundary=", b'"', b";", b"\xff"))
