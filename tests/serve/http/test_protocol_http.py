"""HTTP itself: conditional requests, HEAD, Allow, ids of requests, CORS as OpenAI's client asks."""

import re
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import httpx2
import pytest

from entracte.errors import RequestError
from entracte.report.colours import COMPONENTS, LIGHT, OTHERS
from entracte.serve.http.cors import require_origins
from entracte.serve.server import check

from ..running import Local, local, settings_for
from .asking import error_of, png, raw, request

STUDIO = "https://studio.example.com"


@pytest.fixture(scope="module")
def done(shared: Local) -> str:
    """A finished video with an image."""
    files = {"input_reference": ("a.png", png(), "image/png")}
    form = {"prompt": "A street", "size": "64x64", "num_frames": "9"}
    video: str = shared.client.post("/v1/videos", data=form, files=files).json()["id"]
    assert shared.ended(video)["status"] == "completed"
    return video


FILES = ["/v1/videos/{}/content", "/v1/videos/{}/images/0", "/page/main.js", "/"]


@pytest.mark.parametrize("path", FILES)
def test_what_a_client_has_is_not_sent_again(shared: Local, done: str, path: str) -> None:
    address = path.format(done)
    first = shared.client.get(address)
    tag, date = first.headers["etag"], first.headers["last-modified"]
    moment = parsedate_to_datetime(date)
    before = format_datetime(moment - timedelta(seconds=1), usegmt=True)
    later = format_datetime(moment + timedelta(hours=1), usegmt=True)
    for headers, status in (
        ({"If-None-Match": tag}, 304),
        ({"If-None-Match": f'"x", W/{tag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": date}, 200),
        ({"If-Modified-Since": date}, 304),
        ({"If-Modified-Since": later}, 304),
        ({"If-Modified-Since": before}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Match": tag}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": f"W/{tag}"}, 412),
        ({"If-Unmodified-Since": date}, 200),
        ({"If-Unmodified-Since": before}, 412),
        ({"If-Match": tag, "If-None-Match": tag, "If-Unmodified-Since": before}, 304),
        ({"If-None-Match": tag, "Range": "bytes=0-1"}, 304),
        ({"If-Match": tag, "Range": "bytes=0-1"}, 206),
        ({"Range": "items=0-1"}, 200),
        ({"Range": "seconds=1-2", "If-None-Match": '"x"'}, 200),
    ):
        for method in ("GET", "HEAD"):
            answer = shared.client.request(method, address, headers=headers)
            assert answer.status_code == status, (method, headers)
            if status == 304:
                assert (answer.content, answer.headers["etag"]) == (b"", tag)
                assert answer.headers["cache-control"] == first.headers["cache-control"]
                assert "content-length" not in answer.headers
        if status == 200:
            assert shared.client.get(address, headers=headers).content == first.content
        if status == 412:
            answer = shared.client.get(address, headers=headers)
            error_of(answer, 412, "precondition_failed")


@pytest.mark.parametrize(
    "path",
    ["/", "/page/main.js", "/liveness", "/health", "/session", "/metrics", "/openapi.json"]
    + ["/v1/videos", "/v1/videos/{}", "/v1/videos/{}/content", "/v1/videos/{}/images/0"]
    + ["/v1/videos/{}/events", "/v1/events", "/v1/engine", "/v1/models", "/v1/models/ltx-2.3"],
)
def test_head_is_get_without_the_body(shared: Local, done: str, path: str) -> None:
    address = path.format(done)
    head = shared.client.head(address)
    assert (head.status_code, head.content) == (200, b"")
    with shared.client.stream("GET", address) as answer:
        for name in ("content-type", "etag", "cache-control"):
            assert head.headers.get(name) == answer.headers.get(name)
    assert shared.client.get("/liveness").status_code == 200  # on the same connection


def test_head_of_what_is_wrong_is_wrong_too(shared: Local) -> None:
    assert shared.client.head("/v1/videos/x").status_code == 404
    assert shared.client.head("/v1/videos/estimate/x").status_code == 404
    assert httpx2.head(f"{shared.url}/v1/videos").status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/videos", "GET, HEAD, POST"),
        ("POST", "/v1/videos/x", "DELETE, GET, HEAD"),
        ("DELETE", "/v1/videos/x/content", "GET, HEAD"),
        ("GET", "/v1/videos/x/cancel", "POST"),
        ("HEAD", "/v1/videos/x/cancel", "POST"),
        ("PATCH", "/session", "DELETE, GET, HEAD, POST"),
        ("POST", "/", "GET, HEAD"),
    ],
)
def test_allow_names_every_method(shared: Local, method: str, path: str, allowed: str) -> None:
    answer = shared.client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/v1/videos/", "/v1/models/", "/health/", "//evil.example.com/"])
def test_no_address_is_made_from_the_name_that_a_client_uses(shared: Local, path: str) -> None:
    key = f"Authorization: Bearer {shared.key}"
    answer = raw(shared, request("GET", path, key, host="evil.example.com"))
    error_of(answer, 404)
    assert answer is not None
    assert "location" not in answer.headers


def test_every_answer_has_an_id_that_the_log_has_too(shared: Local) -> None:
    seen = set()
    for path in ("/v1/models", "/nothing", "/v1/videos?limit=x", "/page/main.js", "/liveness"):
        seen.add(shared.client.get(path).headers["x-request-id"])
    seen.add(httpx2.get(f"{shared.url}/v1/videos").headers["x-request-id"])
    assert len(seen) == 6
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", each) for each in seen)
    answer = shared.client.get("/v1/models", headers={"X-Request-Id": "of-a-proxy-17"})
    assert answer.headers["x-request-id"] == "of-a-proxy-17"
    assert "of-a-proxy-17" in shared.log.getvalue()
    for odd in ("short", "x" * 65, "a b c d e f g", "<script>alert"):
        answer = shared.client.get("/v1/models", headers={"X-Request-Id": odd})
        assert answer.headers["x-request-id"].startswith("req_")


@pytest.fixture(scope="module")
def with_cors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("with-cors") / "data"
    with local(folder, ready=False, cors_origin=(STUDIO,)) as running:
        yield running


def preflight(
    running: Local, origin: str, method: str = "POST", names: str = ""
) -> httpx2.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": method}
    headers |= {"Access-Control-Request-Headers": names} if names else {}
    return httpx2.request("OPTIONS", f"{running.url}/v1/videos", headers=headers)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize(
    "names",
    [
        "",
        "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,"
        "x-stainless-package-version,x-stainless-poll-helper,x-stainless-retry-count,"
        "x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout",
        "idempotency-key,if-none-match,last-event-id,range",
    ],
)
def test_a_listed_site_may_send_any_header(with_cors: Local, method: str, names: str) -> None:
    answer = preflight(with_cors, STUDIO, method, names)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == STUDIO
    assert method in answer.headers["access-control-allow-methods"]
    allowed = answer.headers.get("access-control-allow-headers", "").lower()
    assert set(filter(None, names.split(","))) <= set(allowed.replace(" ", "").split(","))


def test_a_listed_site_may_read_what_its_client_needs(with_cors: Local) -> None:
    answer = with_cors.client.get("/v1/videos", headers={"Origin": STUDIO})
    exposed = answer.headers["access-control-expose-headers"].replace(" ", "").split(",")
    for name in ("content-range", "content-disposition", "etag", "x-should-retry", "x-request-id"):
        assert name in exposed
    assert {"retry-after", "openai-poll-after-ms"} <= set(exposed)


def test_a_refused_preflight_is_an_error_as_others_are(with_cors: Local) -> None:
    for origin, method in (("https://evil.example.com", "POST"), (STUDIO, "PATCH")):
        error_of(preflight(with_cors, origin, method), 400, "wrong_origin")


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "", f"{STUDIO}/", f"{STUDIO}/page", "studio.example.com", STUDIO.upper()]
    + [f"{STUDIO}:443", "http://studio.example.com:80", f"{STUDIO}:0", f"{STUDIO}:x", "https://"]
    + ["https://*.example.com", "https://user@example.com", "https://exämple.com", f" {STUDIO}"],
)
def test_an_origin_that_never_fits_or_fits_all_is_refused(tmp_path: Path, origin: str) -> None:
    with pytest.raises(RequestError, match=r"`cors_origin`"):
        check(settings_for(tmp_path, cors_origin=(STUDIO, origin)))


def test_origins_of_browsers_are_taken() -> None:
    require_origins(
        [STUDIO, "http://localhost:3000", "http://[::1]:8080", "tauri://localhost"]
        + [
            "chrome-extension://abcdefghijklmnop",
            "http://192.168.0.7",
            "https://xn--exmple-cua.com:8443",
        ]
    )


def test_the_page_has_the_palette_of_the_report(shared: Local) -> None:
    answer = httpx2.get(f"{shared.url}/page/style/palette.css")
    assert answer.headers["content-type"].startswith("text/css")
    served = dict(re.findall(r"--([\w-]+): (#\w+);", answer.text.partition("@media")[0]))
    assert served == dict(LIGHT)
    of_parts = dict(re.findall(r"--(?:component-)?(\w[\w-]*): (#\w+);", answer.text))
    assert COMPONENTS.items() <= of_parts.items()
    script = shared.client.get("/page/machine.js").text
    named = re.search(r"const NAMES = {(.*?)};", script, re.DOTALL)
    others = re.search(r"const OTHER_COLOURS = (\d+);", script)
    assert named is not None
    assert others is not None
    assert set(re.findall(r"(\w+):", named[1])) == COMPONENTS.keys()
    assert int(others[1]) == len(OTHERS)


def test_every_custom_property_of_the_page_is_defined(shared: Local) -> None:
    page = shared.client.get("/").text
    sheets = "".join(
        shared.client.get(path).text for path in re.findall(r'href="(/page/style/[^"]+)"', page)
    )
    used = set(re.findall(r"var\((--[\w-]+)", sheets))
    assert used <= set(re.findall(r"(--[\w-]+):", sheets))
