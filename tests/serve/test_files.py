"""Files of videos in a store of objects: whole, in parts, for every machine."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from entracte.errors import RequestError
from entracte.serve import files as files_module
from entracte.serve.data_folder import DataFolder, DataFolderError
from entracte.serve.files import Files, open_files
from entracte.serve.service import new_id

from .running import Local, local
from .s3 import s3_server


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(monkeypatch) as url:
        yield url


def machine(folder: Path, url: str) -> Files:
    data = DataFolder(folder)
    data.prepare()
    files = open_files(data, url)
    data.make_videos()
    return files


def write(files: Files, video_id: str, name: str, content: bytes) -> None:
    files.folder.make_room(video_id)
    (files.folder.of_video(video_id) / name).write_bytes(content)
    files.keep(video_id, name)


@pytest.mark.parametrize("far", [True, False])
def test_what_one_machine_keeps_others_find(
    tmp_path: Path, request: pytest.FixtureRequest, far: bool
) -> None:
    url = request.getfixturevalue("bucket") if far else (tmp_path / "shared").as_uri()
    first, second = (machine(tmp_path / name, url) for name in ("first", "second"))
    video, other = new_id(), new_id()
    content = bytes(range(256)) * 50_000  # of several chunks
    write(first, video, "video.mp4", content)
    write(first, other, "image-0.png", b"picture")
    found = second.find(video, "video.mp4")
    assert found is not None
    assert found.read_bytes() == content
    assert second.find(video, "video-2.mp4") is None
    assert first.sweep({other}, 3600.0) == 0  # it may be about to be submitted
    assert first.sweep({other}, -1.0) == 1
    assert machine(tmp_path / "third", url).find(video, "video.mp4") is None
    assert second.find(other, "image-0.png") is not None
    second.remove(other)
    assert machine(tmp_path / "fourth", url).find(other, "image-0.png") is None


def test_copies_are_removed_after_a_while(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, video = machine(tmp_path / "data", bucket), new_id()
    write(files, video, "video.mp4", b"video")
    files.sweep_copies()
    assert files.folder.video(video).is_file()
    monkeypatch.setattr(files_module, "COPY_SECONDS", -1.0)
    files.sweep_copies()
    assert not files.folder.of_video(video).exists()
    assert files.find(video, "video.mp4") is not None


def test_a_store_that_fails_is_a_failure_of_ours(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = machine(tmp_path / "data", "s3://somebody-elses/bucket")
    with pytest.raises(DataFolderError, match="the store of videos failed"):
        write(files, new_id(), "video.mp4", b"video")


@pytest.mark.parametrize("url", ["videos", "ftp://host/x", "file:///", "file://host/x", "s3:"])
def test_other_urls_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(RequestError, match="`storage`"):
        open_files(DataFolder(tmp_path), url)


def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.mark.parametrize("settings", [{}, {"redirect_seconds": 60}])
def test_a_service_with_a_store(tmp_path: Path, bucket: str, settings: dict[str, Any]) -> None:
    with local(tmp_path / "data", storage=bucket, **settings) as running:
        video = running.ended(running.create(input_reference=picture())["id"])["id"]
        forget_copies(running)
        content = f"/v1/videos/{video}/content"
        answer = running.client.get(content, headers={"Range": "bytes=4-7"})
        if settings:
            assert answer.status_code == 302
            answer = httpx2.get(answer.headers["location"], headers={"Range": "bytes=4-7"})
        assert (answer.status_code, answer.content) == (206, b"ftyp")
        for path in (f"{content}?variant=thumbnail", f"/v1/videos/{video}/images/0"):
            forget_copies(running)
            assert running.client.get(path).status_code == 200
        running.client.delete(f"/v1/videos/{video}")
        assert running.service.files.find(video, "video.mp4") is None


def forget_copies(running: Local) -> None:
    running.service.folder.sweep(set())
