"""An engine that computes one video while another is being written."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
import torch

from entracte import Engine, Progress, Request, Residency
from entracte.errors import Cancelled, MediaError
from entracte.result import Result
from entracte.trace.write_dump import perf_dump

PATIENCE = 600.0


def small(**values: object) -> Request:
    size = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2}
    return Request(**({"prompt": "A quiet street"} | size | values))


@pytest.fixture(scope="module")
def engine(demo_model: Path) -> Iterator[Engine]:
    with Engine.open(demo_model, residency=Residency("resident")) as opened:
        yield opened


class Held:
    """A `should_stop` that holds the thread that writes, until `let_go`; it may `stop` it then."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.stop = False
        self._caller = threading.current_thread()
        self._go = threading.Event()

    def __call__(self) -> bool:
        if threading.current_thread() is self._caller:
            return False
        self.reached.set()
        assert self._go.wait(PATIENCE)
        return self.stop

    def let_go(self, stop: bool = False) -> None:
        self.stop = stop
        self._go.set()


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.let_go()


def begun(engine: Engine, held: Held, path: Path) -> Result:
    """A video that is computed, and not yet written."""
    writing = engine.generate(small(seed=1), output_path=path, should_stop=held, wait=False)
    assert held.reached.wait(PATIENCE)
    assert not path.exists()
    return writing


def pixels(path: Path) -> torch.Tensor:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    return torch.stack(list(map(torch.from_numpy, frames)))


def test_the_next_is_computed_while_one_is_written(
    engine: Engine, held: Held, tmp_path: Path
) -> None:
    alone = engine.generate(small(seed=1), output_path=tmp_path / "alone.mp4")
    path = tmp_path / "video.mp4"
    writing = begun(engine, held, path)
    other = engine.generate(small(seed=2))
    assert not path.exists()
    held.let_go()
    result = writing.wait()
    assert path.exists()
    assert torch.equal(pixels(path), pixels(tmp_path / "alone.mp4"))
    assert result.frames is not None
    assert alone.frames is not None
    assert torch.equal(result.frames, alone.frames)
    assert not torch.equal(result.frames, other.frames)


def test_the_trace_has_the_writing_and_closes(engine: Engine, held: Held, tmp_path: Path) -> None:
    writing = begun(engine, held, tmp_path / "video.mp4")
    other = engine.generate(small(seed=2)).trace
    held.let_go()
    trace = writing.wait().trace
    *_, before, mux = trace.spans
    assert (before.name, mux.name) == ("decode video", "mux")
    # From when the device was free, so beside all of the other one.
    assert mux.start >= before.start + before.seconds
    assert mux.seconds > other.seconds
    closure = perf_dump(trace, {}).to_json()["closure"]
    assert closure["parts_ms"] == pytest.approx(closure["end_to_end_ms"], rel=0.01)
    assert closure["end_to_end_ms"] == pytest.approx(trace.seconds * 1e3, abs=0.001)


@pytest.mark.slow
def test_frames_of_one_video_at_most_wait(engine: Engine, held: Held, tmp_path: Path) -> None:
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    writing = begun(engine, held, first)
    seen: list[tuple[str, bool]] = []
    asked = 0

    def note(progress: Progress) -> None:
        seen.append((progress.stage, first.exists()))

    def waits() -> bool:
        nonlocal asked
        asked += bool(seen) and seen[-1][0] == "decode video"
        if asked == 3:
            held.let_go()
        return False

    engine.generate(small(seed=2), output_path=second, progress=note, should_stop=waits)
    assert seen[-2:] == [("decode video", False), ("mux", True)]
    assert second.exists()
    assert writing.wait().output_path == first


@pytest.mark.slow
def test_a_cancel_ends_the_writing(engine: Engine, held: Held, tmp_path: Path) -> None:
    writing = begun(engine, held, tmp_path / "video.mp4")
    held.let_go(stop=True)
    with pytest.raises(Cancelled):
        writing.wait()
    assert list(tmp_path.iterdir()) == []
    engine.generate(small(), output_path=tmp_path / "next.mp4")


@pytest.mark.slow
def test_a_cancel_ends_the_wait_for_the_earlier_video(
    engine: Engine, held: Held, tmp_path: Path
) -> None:
    writing = begun(engine, held, tmp_path / "first.mp4")
    stages: list[str] = []
    with pytest.raises(Cancelled):
        engine.generate(
            small(seed=2),
            output_path=tmp_path / "second.mp4",
            progress=lambda progress: stages.append(progress.stage),
            should_stop=lambda: stages[-1:] == ["decode video"],
        )
    held.let_go()
    writing.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["first.mp4"]


@pytest.mark.slow
def test_an_error_is_of_the_video_that_cannot_be_written(
    engine: Engine, held: Held, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    writing = begun(engine, held, gone / "first.mp4")
    shutil.rmtree(gone)
    second = tmp_path / "second.mp4"

    def go_on(progress: Progress) -> None:
        if progress.stage == "decode video":
            held.let_go()

    assert engine.generate(small(seed=2), output_path=second, progress=go_on)
    with pytest.raises(MediaError, match=r"cannot write .*first\.mp4"):
        writing.wait()
    assert list(tmp_path.iterdir()) == [second]


def test_what_interrupts_a_generation_leaves_no_file(engine: Engine, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage == "mux":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(small(), output_path=tmp_path / "video.mp4", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_closing_waits_for_the_writing(demo_model: Path, held: Held, tmp_path: Path) -> None:
    engine = Engine.open(demo_model, residency=Residency("resident"))
    writing = begun(engine, held, tmp_path / "video.mp4")
    closing = threading.Thread(target=engine.close)
    closing.start()
    closing.join(0.3)
    assert closing.is_alive()
    held.let_go()
    closing.join(PATIENCE)
    assert (tmp_path / "video.mp4").exists()
    assert writing.wait().frames is not None
