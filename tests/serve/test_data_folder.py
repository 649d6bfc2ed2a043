"""The data folder: whatever is in a folder that is not ours stays as it is."""

import base64
import errno
import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from entracte.cli.main import run
from entracte.serve.data_folder import DataFolder, DataFolderError
from entracte.serve.jobs.database import open_database
from entracte.serve.service import new_id

from .running import Local, local, small, wait_for

READING = ("jobs list", "jobs show video_0", "jobs cancel video_0", "jobs prune", "keys list")


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every path below a folder, and itself, with its mode and what it holds."""
    return {
        str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def foreign_videos(folder: Path) -> None:
    (folder / "videos" / "Summer holidays 2024").mkdir(parents=True)
    (folder / "videos" / "Summer holidays 2024" / "beach.mp4").write_bytes(b"beach")


def lost_database(folder: Path) -> None:
    (folder / "videos" / new_id()).mkdir(parents=True)
    (folder / "lock").touch()


def empty_database(folder: Path) -> None:
    lost_database(folder)
    (folder / "entracte.db").touch()


def notes(folder: Path) -> None:
    for name in "abcde":
        (folder / f"{name}.txt").write_text(name)


def somebody_elses_database(folder: Path) -> None:
    with sqlite3.connect(folder / "entracte.db") as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    database.close()


def same_names_other_columns(folder: Path) -> None:
    with sqlite3.connect(folder / "entracte.db") as database:
        database.execute("CREATE TABLE jobs (name TEXT)")
        database.execute("PRAGMA user_version = 1")
    database.close()


def not_a_database(folder: Path) -> None:
    (folder / "entracte.db").write_bytes(b"Dear diary, " * 1000)


def a_folder_for_a_database(folder: Path) -> None:
    (folder / "entracte.db").mkdir()


@pytest.mark.sampled(8)
@pytest.mark.parametrize("command", ["serve --model MODEL --port 0", "keys add ann", "jobs list"])
@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (foreign_videos, "videos"),
        (lost_database, "entracte.db"),
        (empty_database, "holds videos"),
        (notes, "a.txt, b.txt, c.txt and 2 more"),
        (somebody_elses_database, "is not a database of entracte"),
        (same_names_other_columns, "is not a database of entracte"),
        (not_a_database, "file is not a database"),
        (a_folder_for_a_database, "entracte.db"),
    ],
)
def test_what_is_somebody_elses_is_refused_and_left_alone(
    demo_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    command: str,
    fill: Callable[[Path], None],
    words: str,
) -> None:
    tmp_path.chmod(0o755)
    fill(tmp_path)
    before = contents(tmp_path)
    asked = command.replace("MODEL", str(demo_model)).split()
    assert run([*asked, "--data-folder", str(tmp_path)]) == 2
    said = capfd.readouterr().err
    assert str(tmp_path) in said
    assert "Traceback" not in said
    if command != "jobs list":  # which only says that it is not there
        assert words in said
    assert contents(tmp_path) == before


@pytest.mark.sampled(4)
@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("there", [True, False])
def test_commands_that_read_make_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str, there: bool
) -> None:
    folder = tmp_path / "mistyped"
    if there:
        folder.mkdir(0o755)
    before = contents(tmp_path)
    assert run([*command.split(), "--data-folder", str(folder)]) == 2
    said = capfd.readouterr().err
    assert f"{folder} is not a service's data folder" in said
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_what_is_made_is_private_and_what_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with local(tmp_path) as running:
        video = running.ended(running.create()["id"])["id"]
        folder = running.service.folder
        assert tmp_path.stat().st_mode & 0o7777 == 0o1777
        for path in (folder.videos, folder.of_video(video)):
            assert path.stat().st_mode & 0o777 == 0o700
        made = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {path.name for path in made} >= {"entracte.db-wal", "entracte.db-shm", "video.mp4"}
        assert {path.name: path.stat().st_mode & 0o077 for path in made} == {
            path.name: 0 for path in made
        }


def test_a_folder_that_is_made_is_private(tmp_path: Path) -> None:
    DataFolder(tmp_path / "new" / "data").prepare()
    assert (tmp_path / "new" / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "names", [(), ("lost+found",), ("webhook-secret",), ("lock",), ("entracte.db",)]
)
def test_traces_of_a_first_start_are_taken(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "videos").mkdir()
    folder = DataFolder(tmp_path)
    folder.prepare()
    open_database(folder.database).dispose()


@pytest.mark.slow
def test_a_start_removes_only_what_is_ours(tmp_path: Path) -> None:
    with local(tmp_path) as running:
        video = running.ended(running.create()["id"])["id"]
        failed = running.ended(running.create("refuse")["id"])["id"]
        folder = running.service.folder
    ours = new_id()
    for name in (ours, failed, "Summer holidays 2024", ours[:-1], ours.upper(), f"{ours}.bak"):
        (folder.videos / name).mkdir(exist_ok=True)
        (folder.videos / name / "beach.mp4").touch()
    (folder.videos / new_id()).symlink_to(tmp_path / "elsewhere")
    (folder.videos / "readme.txt").touch()
    part = folder.of_video(video) / ".video.mp4.12345678.part"
    part.touch()
    left = {each.name for each in folder.videos.iterdir()} - {ours, failed}
    with local(tmp_path):
        assert {each.name for each in folder.videos.iterdir()} == left
        assert folder.video(video).is_file()
        assert not part.exists()


def test_a_damaged_database_is_refused_in_words(
    demo_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    open_database(folder.database).dispose()
    with folder.database.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)
    serve = f"serve --model {demo_model} --port 0"
    for command in (serve, "jobs list", "keys list", "keys add ann"):
        assert run([*command.split(), "--data-folder", str(folder.root), "--json"]) == 2
        error = json.loads(capfd.readouterr().out)["error"]
        assert error["type"] == "DatabaseError"
        assert str(folder.database) in error["message"]


def test_a_service_opens_no_folder_of_somebody_elses(tmp_path: Path) -> None:
    foreign_videos(tmp_path)
    with pytest.raises(DataFolderError), local(tmp_path, ready=False):
        raise AssertionError("it started")
    assert (tmp_path / "videos" / "Summer holidays 2024" / "beach.mp4").read_bytes() == b"beach"


# What the disk refuses


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local(tmp_path_factory.mktemp("disk") / "data") as service:
        yield service


@pytest.fixture
def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def test_files_that_cannot_be_removed_keep_their_video(
    running: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = running.ended(running.create()["id"])["id"]

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", refuse)
        answer = running.client.delete(f"/v1/videos/{video}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "storage_failed")
    assert running.video(video)["status"] == "completed"
    assert running.client.delete(f"/v1/videos/{video}").json()["deleted"]
    assert not running.service.folder.of_video(video).exists()


def test_videos_that_cannot_be_made_room_for(running: Local, picture: str) -> None:
    videos = running.service.folder.videos
    away = videos.rename(videos.with_name("away"))
    try:
        videos.touch()  # nothing can be made in it, though we are root
        answer = running.client.post("/v1/videos", json=small(input_reference=picture))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_failed")
        assert str(videos) not in answer.text
    finally:
        videos.unlink()
        away.rename(videos)
    assert running.service.store.waiting() == []


@pytest.mark.slow
def test_what_fails_or_is_cancelled_gives_its_images_back(running: Local, picture: str) -> None:
    failed = running.create("refuse", input_reference=picture)["id"]
    assert running.ended(failed)["error"]["code"] == "model_error"
    blocks = running.create("steps 4000")["id"]
    waits = running.create(input_reference=picture)["id"]
    folder = running.service.folder
    assert folder.image(waits, 0).is_file()
    for video in (waits, blocks):
        running.client.post(f"/v1/videos/{video}/cancel")
        running.ended(video)
    for video in (failed, waits, blocks):
        wait_for(lambda v=video: not folder.of_video(v).exists())
        job = running.service.store.find(video)
        assert job is not None
        assert job.input_bytes == 0
