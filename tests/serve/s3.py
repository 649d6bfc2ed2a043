"""An S3 server: moto's, since none of Debian's runs without a cluster around it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import httpx2
import pytest

MISSING = "moto's server is not installed (pip install 'moto[server]')"
BUCKET = "videos"


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket's prefix, with what it takes to reach it in the environment."""
    if find_spec("moto") is None:
        pytest.skip(MISSING)
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    assert httpx2.put(f"http://{host}:{port}/{BUCKET}").status_code == 200
    try:
        yield f"s3://{BUCKET}/fleet"
    finally:
        server.stop()
