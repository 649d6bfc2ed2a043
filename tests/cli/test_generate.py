"""The command as a user runs it."""

import json
from fractions import Fraction
from pathlib import Path

import av
import pytest
from safetensors.torch import load_file

from entracte.cli.console import ProgressLines
from entracte.cli.generate import add_parser
from entracte.cli.main import run
from entracte.cli.orders import VideoOrder, read_orders
from entracte.cli.overwrite import free_name
from entracte.cli.parser import Parser
from entracte.errors import RequestError
from entracte.progress import Progress
from entracte.synthetic.demo import CHECKPOINT, DISTILLED_LORA, GEMMA, UPSAMPLER

from ..faults import full_disk

SMALL = [
    "--height", "128", "--width", "128", "--num-frames", "9", "--num-inference-steps", "2",
]  # fmt: skip


def generate(model: Path, output: Path, *flags: str, mode: str = "resident") -> int:
    return run(
        ["generate", "--model", str(model), "--prompt", "A street", "--output-path", str(output)]
        + [*SMALL, "--mode", mode, *flags]
    )


def test_a_video_latents_and_times(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents, dump = tmp_path / "latents.safetensors", tmp_path / "perf.json"
    flags = ["--latents-path", str(latents), "--perf-dump-path", str(dump), "--stages"]
    assert generate(demo_model, tmp_path / "video.mp4", *flags, mode="auto") == 0
    out = capsys.readouterr().out
    assert "denoise" in out
    assert "end to end" in out
    assert f"{tmp_path / 'video.mp4'}: 128x128, 0.4 s at 24 frames a second, seed 10, " in out
    assert "made in " in out
    assert f"wrote {latents}" in out
    assert load_file(latents).keys() == {
        f"stage{n}.{stream}_latent" for n in (1, 2) for stream in ("video", "audio")
    }
    written = json.loads(dump.read_text())
    assert {"timestamp", "request_id", "commit_hash", "tag", "total_duration_ms"} <= written.keys()
    steps = {step["name"]: step["duration_ms"] for step in written["steps"]}
    assert sum(steps.values()) == pytest.approx(written["total_duration_ms"], rel=0.1)
    assert len(written["denoise_steps_ms"]) == 2 + 3
    assert written["memory_checkpoints"]["denoise"]["peak_host_anon_mb"] > 0
    assert written["meta"]["counts"]["forwards"] == 4 * 2 + 3
    assert "A street" not in dump.read_text()
    assert str(tmp_path) not in dump.read_text()


@pytest.mark.slow
def test_json(demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--json", "--seed", "3"]
    assert generate(demo_model, tmp_path / "video.mp4", *flags) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert captured.err == ""
    assert summary["output_path"] == str(tmp_path / "video.mp4")
    assert summary["settings"]["seed"] == 3
    counts = summary["counts"]
    assert (counts["text_encodings"], counts["forwards"]) == (2, 11)
    assert counts["weights_merges"] == 164  # every linear of the transformer, once
    assert counts["weights_bytes_out"] == 0
    assert {row["where"] for row in summary["residency"]} == {"device"}


@pytest.mark.slow
def test_quiet(demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(demo_model, tmp_path / "video.mp4", "--quiet") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert (tmp_path / "video.mp4").stat().st_size > 1000


@pytest.mark.slow
def test_what_exists_is_overwritten_only_by_force(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "frame_00000.png").touch()
    files = [tmp_path / name for name in ("video.mp4", "l.safetensors", "perf.json", "trace.json")]
    flags = ["--latents-path", "--perf-dump-path", "--trace-path"]
    outputs = [part for pair in zip(flags, map(str, files[1:]), strict=True) for part in pair]
    for existing in files:
        existing.write_text("dear")
        assert generate(demo_model, files[0], *outputs) == 2
        words = f"entracte: {existing} exists already; give --force to overwrite it\n"
        assert capsys.readouterr().err == words
        assert existing.read_text() == "dear"
        existing.unlink()
    assert generate(demo_model, frames) == 2
    assert "frames has frames already; give --force" in capsys.readouterr().err
    for existing in files:
        existing.write_text("dear")
    assert generate(demo_model, files[0], *outputs, "--force") == 0
    out = capsys.readouterr().out
    for written in files:
        assert written.stat().st_size > 1000
        assert str(written) in out


def test_the_default_name_is_one_that_is_free(tmp_path: Path) -> None:
    for name in ("output.mp4", "output-2.mp4", "output-3.mp4"):
        assert free_name(tmp_path / "output.mp4") == tmp_path / name
        (tmp_path / name).touch()


def test_progress_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Every stage and every tenth are lines of their own; nothing is 100 % before it is done."""
    with ProgressLines() as lines:
        for step in range(101):
            left = None if step == 0 else 200.0 - 2 * step
            lines.update(Progress("denoise", step, 100, step / 100, left))
        lines.update(Progress("decode video", 0, 0, 1.0, 0.0))
    first, begun, *tenths, done = capsys.readouterr().err.splitlines()
    assert (first, begun) == ("open the model", "denoise, 0/100, 0%")
    assert len(tenths) == 9
    assert tenths[0] == "denoise, 10/100, 10%, 3:00 left"
    assert done == "decode video, 99%"


@pytest.mark.slow
def test_the_official_flag_names(demo_model: Path, tmp_path: Path) -> None:
    from PIL import Image

    image = tmp_path / "image.png"
    Image.linear_gradient("L").save(image)
    arguments = ["generate", "--prompt", "A street", "--output-path", str(tmp_path / "v.mp4")]
    arguments += ["--checkpoint-path", str(demo_model / CHECKPOINT)]
    arguments += ["--gemma-root", str(demo_model / GEMMA)]
    arguments += ["--distilled-lora", str(demo_model / DISTILLED_LORA), "0.8"]
    arguments += ["--spatial-upsampler-path", str(demo_model / UPSAMPLER)]
    arguments += ["--lora", str(demo_model / DISTILLED_LORA), "0.1"]
    arguments += ["--image", str(image), "0", "1.0", "--image", str(image), "8", "0.7", "20"]
    arguments += ["--negative-prompt", "fog", "--seed", "5", "--frame-rate", "25"]
    arguments += ["--video-cfg-guidance-scale", "2", "--audio-cfg-guidance-scale", "1"]
    arguments += ["--video-stg-guidance-scale", "0.5", "--audio-stg-guidance-scale", "0"]
    arguments += ["--video-stg-blocks", "1", "2", "--audio-stg-blocks", "1"]
    arguments += ["--a2v-guidance-scale", "1", "--v2a-guidance-scale", "1"]
    arguments += ["--video-rescale-scale", "0", "--audio-rescale-scale", "0.5"]
    arguments += ["--device", "cpu", "--dtype", "float32", "--pipeline", "two-stage", "--quiet"]
    assert run([*arguments, *SMALL, "--mode", "resident"]) == 0
    assert (tmp_path / "v.mp4").exists()


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--height", "101"], "--height: 101 is odd; an H.264 video has even sides"),
        (["--height", "tall"], "--height: must be a whole number, not 'tall'"),
        (["--num-frames", "10"], "--num-frames: 10 is not of the form 8k + 1"),
        (["--frame-rate", "0"], "--frame-rate: must be at least 0.1"),
        (["--frame-rate", "24/0"], "--frame-rate: must be a number, or a fraction such as"),
        (["--prompt", "caf\udce9"], "--prompt: is not Unicode text at character 4"),
        (["--image", "https://a.example/b.png"], "path: is a URL; media are read from files"),
        (["--seed", "-4"], "--seed: must be at least 0, not -4"),
        (["--seed", "random"], "--seed: must be a whole number, not 'random'"),
        (["--mode", "fast"], "--mode: must be auto, resident, fused, snapshot, dynamic, original"),
        (["--heigth", "128"], "unknown option --heigth; did you mean --height?"),
        (["--heigh", "128"], "unknown option --heigh; did you mean --height?"),
        (["more"], "the prompt is given twice"),
        (["more", "words"], "unexpected argument 'words'; put the prompt in quotes"),
        (["--size", "big"], "--size: must be a size such as 1280x720, not 'big'"),
        (["--size", "128x128"], "--size is given beside --height or --width"),
        (["--seconds", "2"], "--seconds is given beside --num-frames"),
        (["--seeds", "1", "--count", "2"], "--seeds and --count: give one of them"),
        (["--count", "2", "--latents-path", "l.safetensors"], "are of one video; ask for one"),
        (["--prompts", "gone.txt"], "--prompts: cannot read gone.txt"),
        (["--like", "gone.mp4"], "cannot read gone.mp4"),
        (
            ["--pipeline", "three-stage"],
            "--pipeline: must be two-stage, hq, one-stage",
        ),
        (
            ["--image", *"a0123"],
            "--image takes PATH [FRAME [STRENGTH [CRF]]]; it was",
        ),
        (
            ["--image", "a.png", "zero", "1"],
            "--image a.png: frame: must be a whole number",
        ),
        (["--lora", "a", "strong"], "--lora: the strength must be a number, not 'strong'"),
        (["--image", "gone.png"], "cannot read image gone.png"),
        (["--lora", "gone.safetensors"], "LoRA gone.safetensors: cannot read the file"),
        (["--video-stg-blocks", "28"], "block 28; the transformer has blocks 0 to 3"),
        (["--output-path", "gone/video.mp4"], "folder gone does not exist"),
        (["--perf-dump-path", "gone/perf.json"], "folder gone does not exist"),
        (["--checkpoint-path", "gone.safetensors"], "cannot read gone.safetensors"),
        (["--gemma-root", "gone"], "Gemma folder gone does not exist"),
        (["--device", "cuda:77"], "torch sees no such CUDA device"),
    ],
)
def test_bad_input(
    demo_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    assert generate(demo_model, tmp_path / "video.mp4", *flags) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_other_sizes_are_cut_from_the_next(demo_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "video.MP4"
    flags = ["--height", "90", "--width", "160", "--frame-rate", "24000/1001"]
    assert generate(demo_model, output, *flags) == 0
    with av.open(str(output)) as container:
        video = container.streams.video[0]
        assert (video.height, video.width) == (90, 160)
        assert video.average_rate == Fraction(24000, 1001)


def test_bad_input_as_json(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(demo_model, tmp_path / "video.mp4", "--num-frames", "10", "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "RequestError"
    assert "nearest: 9 and 17" in error["message"]


def test_no_prompt(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "--model", str(demo_model)]) == 2
    assert "--prompt is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_latents_are_saved_though_the_disk_is_full(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents = tmp_path / "latents.safetensors"
    flags = ["--latents-path", str(latents), "--height", "256", "--width", "256"]
    flags += ["--num-frames", "25"]
    with full_disk(after=120_000):  # enough for the latents, too little for the video
        code = generate(demo_model, tmp_path / "video.mp4", *flags)
    assert code == 2
    assert "cannot write" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [latents]
    assert load_file(latents).keys() >= {"stage2.video_latent"}


@pytest.mark.slow
def test_a_prompt_alone_seeds_and_again(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several videos with the weights read once, each of which says how to make it again."""
    street = tmp_path / "street.mp4"
    model = ["--model", str(demo_model), "--mode", "resident", "--json"]
    small = ["--size", "90x130", "--seconds", "0.4", "--num-inference-steps", "2"]
    asked = ["generate", "A street", "--seeds", "5", "7", "--output-path", str(street)]
    assert run([*asked, *model, *small]) == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["settings"]["seed"] for each in made] == [5, 7]
    paths = [tmp_path / "street-1.mp4", tmp_path / "street-2.mp4"]
    assert [each["output_path"] for each in made] == list(map(str, paths))
    assert (made[0]["settings"]["width"], made[0]["settings"]["num_frames"]) == (90, 9)

    assert run(["inspect", str(paths[1]), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["settings"]["prompt"] == "A street"
    assert (said["settings"]["seed"], said["settings"]["height"]) == (7, 130)
    assert str(tmp_path) not in json.dumps(said["settings"])

    again = tmp_path / "again.mp4"
    assert run(["generate", "--like", str(paths[1]), "--output-path", str(again), *model]) == 0
    assert again.read_bytes() == paths[1].read_bytes()
    bare = tmp_path / "bare.mp4"
    like = ["generate", "--like", str(again), "--output-path", str(bare), "--no-metadata"]
    assert run([*like, *model]) == 0
    assert run(["inspect", str(bare)]) == 2
    assert "does not say how it was made" in capsys.readouterr().err
    assert b"A street" not in bare.read_bytes()


def orders(*flags: str) -> list[VideoOrder]:
    parser = Parser(prog="entracte")
    add_parser(parser.add_subparsers())
    return read_orders(parser.parse_args(["generate", *flags]))


def test_prompts_from_a_file(tmp_path: Path) -> None:
    plain, lines = tmp_path / "p.txt", tmp_path / "p.jsonl"
    plain.write_text("A street\n\n  A lighthouse \n")
    lines.write_text('{"prompt": "A", "seed": 3, "size": "640x384"}\n{"prompt": "B"}\n')
    found = orders("--prompts", str(plain), "--count", "2", "--output-path", "v.mp4")
    assert [(each.request.prompt, each.request.seed, str(each.output)) for each in found] == [
        ("A street", 10, "v-1.mp4"),
        ("A street", 11, "v-2.mp4"),
        ("A lighthouse", 10, "v-3.mp4"),
        ("A lighthouse", 11, "v-4.mp4"),
    ]
    first, second = orders("--prompts", str(lines), "--seconds", "2")
    assert (first.request.seed, first.request.width, first.request.height) == (3, 640, 384)
    assert (second.request.seed, second.request.seconds) == (None, 2)
    for wrong, words in (
        ('{"prompt": "A", "modl": "x"}', "line 1: 'modl' is not one of"),
        ('{"prompt": "A", "device": "cpu"}', "line 1: 'device' is not one of"),
        ('{"prompt": "A", "seed": -1}', "line 1: --seed: must be at least 0"),
        ("A street", "line 1: must be a JSON object"),
    ):
        lines.write_text(wrong)
        with pytest.raises(RequestError, match=words):
            orders("--prompts", str(lines))
