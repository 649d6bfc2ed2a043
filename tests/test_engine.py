"""The engine on the demonstration model."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from entracte import Engine, Guidance, ImageCondition, LoraSpec, Progress, Request, Residency
from entracte.checkpoints.sources import Located
from entracte.errors import (
    Cancelled,
    CheckpointError,
    ClosedError,
    LoraError,
    MediaError,
    RequestError,
    ResidencyError,
)
from entracte.models.kernels import Kernels
from entracte.models.video_vae import VideoVae
from entracte.pipeline.preview import Preview, Previewer
from entracte.synthetic.demo import CHECKPOINT, DISTILLED_LORA, GEMMA, UPSAMPLER

SMALL = {"height": 128, "width": 128, "num_frames": 9, "num_inference_steps": 2}


def small(**values: object) -> Request:
    return Request(**({"prompt": "A quiet street"} | SMALL | values))


def open_engine(model: Path | None = None, **options: Any) -> Engine:
    """Without a planner, which the first request would wait for."""
    return Engine.open(model, residency=Residency("resident"), **options)


@pytest.fixture(scope="module")
def engine(demo_model: Path) -> Iterator[Engine]:
    with open_engine(demo_model) as opened:
        yield opened


def test_a_result_carries_everything(engine: Engine) -> None:
    result = engine.generate(small())
    assert result.frames is not None
    assert result.frames.shape == (9, 128, 128, 3)
    assert result.frames.dtype is torch.uint8
    assert result.frames.float().std() > 5
    seconds = result.audio.shape[1] / result.sample_rate
    assert result.audio.shape[0] == 2
    assert seconds == pytest.approx(9 / 24, abs=0.06)  # whole mel frames
    assert result.latents["stage1.video_latent"].shape == (1, 128, 2, 2, 2)
    assert result.latents["stage2.video_latent"].shape == (1, 128, 2, 4, 4)
    assert result.trace.counts["forwards"] == 4 * 2 + 3
    names = [span.name for span in result.trace.spans]
    wanted = ["denoise", "upsample", "switch to stage2", "refine", "decode audio", "decode video"]
    assert [name for name in names if name in wanted] == wanted


@pytest.mark.slow
def test_the_same_seed_is_the_same_video(engine: Engine) -> None:
    one, two, other = (engine.generate(small(seed=s), keep_frames=False) for s in (1, 1, 2))
    for name in one.latents:
        assert torch.equal(one.latents[name], two.latents[name])
        assert not torch.equal(one.latents[name], other.latents[name])


def test_previews_show_and_change_nothing(engine: Engine) -> None:
    seen: list[Preview] = []
    watched = engine.generate(small(), keep_frames=False, preview=seen.append)
    alone = engine.generate(small(), keep_frames=False)
    for name, latent in alone.latents.items():
        assert torch.equal(watched.latents[name], latent)
    sizes = [tuple(each.pixels.shape) for each in seen]
    assert sizes == [(2, 2, 3)] * 2 + [(4, 4, 3)] * 3
    assert [(each.stage, each.step) for each in seen][:3] == [
        ("denoise", 1), ("denoise", 2), ("refine", 1)
    ]  # fmt: skip


def test_plain_colours_are_known_again(engine: Engine) -> None:
    """Roughly: an encoder with random weights is less linear than a trained one."""
    with engine._model.manager.borrow("video_vae", VideoVae) as vae, torch.inference_mode():
        previewer = Previewer.fit(vae, torch.device("cpu"), torch.bfloat16)
        for colour in [(-0.9, 0.9, 0.0), (0.9, 0.9, 0.9)]:
            pixels = torch.tensor(colour).bfloat16().view(1, 3, 1, 1, 1).expand(1, 3, 1, 64, 64)
            shown = previewer.picture(vae.encode(pixels)).float().mean(dim=(0, 1))
            wanted = (torch.tensor(colour) + 1) * 127.5
            assert (shown - wanted).abs().max() < 64


@pytest.mark.slow
def test_the_centre_of_the_frames_is_written(engine: Engine) -> None:
    whole, cut = (engine.generate(small(**size)).frames for size in ({}, {"output_width": 100}))
    assert whole is not None
    assert cut is not None
    assert torch.equal(cut, whole[:, :, 14:114])


@pytest.mark.slow
def test_a_prediction_needs_a_plan_and_changes_none(demo_model: Path) -> None:
    engine = Engine.open(demo_model)
    assert engine.predict(small()) is None
    result = engine.generate(small(), keep_frames=False)
    assert result.decision is not None
    predicted = engine.predict(small())
    assert predicted is not None
    assert predicted.latency_s == pytest.approx(result.decision.chosen.prediction.latency_s)
    longer = engine.predict(small(num_inference_steps=20))
    assert longer is not None
    assert longer.latency_s > predicted.latency_s
    assert engine.decision == result.decision


@pytest.mark.slow
def test_stages_run_their_own_weights(engine: Engine, demo_model: Path) -> None:
    """Stage 2 merged ones, stage 1 the base; and request 2's stage 1 the base again."""
    without = open_engine(demo_model, distilled_lora=(demo_model / DISTILLED_LORA, 0.0))
    merged, base = (e.generate(small(), keep_frames=False).latents for e in (engine, without))
    assert torch.equal(merged["stage1.video_latent"], base["stage1.video_latent"])
    assert not torch.equal(merged["stage2.video_latent"], base["stage2.video_latent"])
    again = engine.generate(small(), keep_frames=False).latents
    assert torch.equal(again["stage1.video_latent"], base["stage1.video_latent"])


@pytest.mark.slow
def test_user_loras_act_in_both_stages(engine: Engine, demo_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    theirs = load_file(demo_model / DISTILLED_LORA)
    save_file({k: torch.randn_like(v) * 0.1 for k, v in theirs.items()}, tmp_path / "user.st")
    plain = engine.generate(small(), keep_frames=False).latents
    styled = {
        strength: engine.generate(
            small(loras=(LoraSpec(path=tmp_path / "user.st", strength=strength),)),
            keep_frames=False,
        ).latents
        for strength in (0.0, 0.5, 1.0)
    }
    for name, latent in plain.items():
        assert torch.equal(styled[0.0][name], latent)
        assert not torch.equal(styled[0.5][name], latent)
        assert not torch.equal(styled[0.5][name], styled[1.0][name])
    assert torch.equal(
        engine.generate(small(), keep_frames=False).latents["stage2.video_latent"],
        plain["stage2.video_latent"],
    )


def test_guidance_can_be_turned_off(engine: Engine) -> None:
    result = engine.generate(
        small(video_guidance=Guidance(), audio_guidance=Guidance()), keep_frames=False
    )
    assert result.trace.counts["forwards"] == 2 + 3


@pytest.mark.slow
def test_images_are_kept(engine: Engine, tmp_path: Path) -> None:
    """At full strength the first frame's latents are the image's."""
    from PIL import Image

    Image.linear_gradient("L").convert("RGB").save(tmp_path / "image.png")
    image = ImageCondition(path=tmp_path / "image.png", frame=0, strength=1.0)
    one, two = (
        engine.generate(small(images=(image,), seed=s), keep_frames=False).latents for s in (1, 2)
    )
    first = "stage2.video_latent"
    assert torch.equal(one[first][:, :, 0], two[first][:, :, 0])
    assert not torch.equal(one[first][:, :, 1], two[first][:, :, 1])


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("pipeline", "phase"), [("two-stage", "stage1"), ("distilled", "stage2")])
def test_which_phases_sound_is_heard(engine: Engine, pipeline: str, phase: str) -> None:
    from entracte.models.audio_vae import AudioVae
    from entracte.models.vocoder import Vocoder
    from entracte.pipeline.latents import decode_audio

    steps = {"num_inference_steps": None} if pipeline == "distilled" else {}
    result = engine.generate(small(pipeline=pipeline, **steps), keep_frames=False)
    manager = engine._model.manager
    with (
        torch.inference_mode(),
        manager.borrow("audio_vae", AudioVae) as vae,
        manager.borrow("vocoder", Vocoder) as vocoder,
    ):
        heard = decode_audio(vae, vocoder, result.latents[f"{phase}.audio_latent"])
    assert torch.equal(result.audio, heard)


def test_a_base_checkpoint_in_the_distilled_pipeline_is_noticed(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.prepare(small(pipeline="distilled", num_inference_steps=None))
    assert "is given a base checkpoint" in caplog.text


@pytest.mark.slow
def test_a_lora_that_fits_in_part_is_noticed(
    engine: Engine, demo_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = load_file(demo_model / DISTILLED_LORA) | {"other.lora_A.weight": torch.ones(2, 2)}
    path = tmp_path / "part.safetensors"
    save_file(tensors, path)
    with pytest.raises(LoraError, match=r"1 of its 329 keys.*other\.lora_A.*partial=True"):
        engine.prepare(small(loras=(LoraSpec(path),)))
    result = engine.generate(small(loras=(LoraSpec(path, partial=True),)), keep_frames=False)
    (warning,) = result.warnings
    assert warning.path == path
    assert warning.keys == ("other.lora_A.weight",)
    assert "1 of its 329 keys" in warning.message
    assert f"part.safetensors: {warning.message}" in caplog.text
    assert str(tmp_path) not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("replace", ["moved over", "written over"])
def test_a_replaced_lora_is_read_again(
    engine: Engine, demo_model: Path, tmp_path: Path, replace: str
) -> None:
    """Also where its header has become longer, or the file shorter."""
    theirs = load_file(demo_model / DISTILLED_LORA)
    path, other = tmp_path / "style.safetensors", tmp_path / "other.safetensors"

    def latents() -> torch.Tensor:
        request = small(loras=(LoraSpec(path),), pipeline="one-stage")
        return engine.generate(request, keep_frames=False).latents["stage1.video_latent"]

    def put(factor: float, metadata: dict[str, str]) -> None:
        tensors = {key: tensor * factor for key, tensor in theirs.items()}
        save_file(tensors, other, metadata)
        if replace == "moved over":
            other.replace(path)
        else:
            path.write_bytes(other.read_bytes())

    put(1.0, {})
    first = latents()
    put(0.5, {"about": "x" * 1000})
    second = latents()
    put(1.0, {})
    assert torch.isfinite(second).all()
    assert not torch.equal(second, first)
    assert torch.equal(latents(), first)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(LoraError, match=r"style\.safetensors.*truncated"):
        latents()
    put(0.5, {"about": "x" * 1000})
    assert torch.equal(latents(), second)


@pytest.mark.slow
def test_factors_that_are_not_finite(engine: Engine, demo_model: Path, tmp_path: Path) -> None:
    tensors = load_file(demo_model / DISTILLED_LORA)
    key = next(key for key in tensors if "transformer_blocks.1" in key)
    tensors[key][0, 0] = torch.nan
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(LoraError, match=rf"{key} has numbers that are not finite"):
        engine.generate(small(loras=(LoraSpec(tmp_path / "nan.safetensors"),)))
    engine.generate(small(), keep_frames=False)


@pytest.mark.slow
def test_a_lora_of_the_connectors(engine: Engine, tmp_path: Path) -> None:
    name = "connectors.audio_connector.transformer_blocks.0.attn1.to_q"
    shape = (
        engine.source.components["connectors"]
        .tensors["audio_embeddings_connector.transformer_1d_blocks.0.attn1.to_q.weight"]
        .info.shape
    )
    factors = {
        f"{name}.lora_A.weight": torch.randn(4, shape[1]),
        f"{name}.lora_B.weight": torch.randn(shape[0], 4),
    }
    save_file(factors, tmp_path / "connector.safetensors")
    plain = engine.generate(small(), keep_frames=False).latents
    request = small(loras=(LoraSpec(tmp_path / "connector.safetensors"),))
    changed = engine.generate(request, keep_frames=False).latents
    assert not torch.equal(plain["stage1.audio_latent"], changed["stage1.audio_latent"])
    again = engine.generate(small(), keep_frames=False).latents
    assert torch.equal(plain["stage1.audio_latent"], again["stage1.audio_latent"])


def test_an_ic_lora_without_a_reference(engine: Engine, demo_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "ic.safetensors"
    save_file(load_file(demo_model / DISTILLED_LORA), path, {"reference_downscale_factor": "2"})
    (notice,) = engine.prepare(small(loras=(LoraSpec(path),))).resolved.weights.notices
    assert "look at a control video" in notice.message


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-2), ("bfloat16", 1e-1)])
def test_a_gpu_makes_the_same_video(demo_model: Path, dtype: str, tolerance: float) -> None:
    latents = [
        Engine.open(demo_model, device=device, dtype=dtype)
        .generate(small(), keep_frames=False)
        .latents["stage2.video_latent"]
        .double()
        for device in ("cpu", "cuda")
    ]
    assert (latents[0] - latents[1]).norm() / latents[0].norm() < tolerance


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["fused", "auto"])
def test_any_gpu_makes_the_same_video(demo_model: Path, kernels: Kernels) -> None:
    """Also one that is not torch's current device."""
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device only")
    made = []
    for device in ("cuda:0", "cuda:1"):
        with Engine.open(
            demo_model, device=device, residency=Residency("fused"), kernels=kernels
        ) as engine:
            for _ in range(2):
                made.append(engine.generate(small(), keep_frames=False).latents)
    for name, expected in made[0].items():
        assert all(torch.equal(each[name], expected) for each in made)


@pytest.mark.parametrize("pipeline", ["one-stage", "distilled"])
def test_other_pipelines(engine: Engine, pipeline: str) -> None:
    values = {} if pipeline == "one-stage" else {"num_inference_steps": None}
    result = engine.generate(small(pipeline=pipeline, **values))
    assert result.frames is not None
    assert result.frames.shape == (9, 128, 128, 3)
    assert result.trace.counts["forwards"] == (8 if pipeline == "one-stage" else 11)


def test_progress_rises_to_the_end(engine: Engine) -> None:
    seen: list[Progress] = []
    engine.generate(small(), progress=seen.append, keep_frames=False)
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert [(p.step, p.steps) for p in seen if p.stage == "refine"] == [(i, 3) for i in range(4)]
    assert all(p.seconds_left is not None for p in seen if p.step)


@pytest.mark.slow
def test_cancelling_leaves_the_engine_right(engine: Engine, tmp_path: Path) -> None:
    expected = engine.generate(small(), keep_frames=False).latents
    for stop_at in ("denoise", "refine", "decode video"):
        stages: list[str] = []
        with pytest.raises(Cancelled, match="stopped by the caller"):
            engine.generate(
                small(),
                output_path=tmp_path / "video.mp4",
                progress=lambda p, stages=stages: stages.append(p.stage),
                should_stop=lambda stages=stages, at=stop_at: bool(stages) and stages[-1] == at,
            )
        assert list(tmp_path.iterdir()) == []
    after = engine.generate(small(), keep_frames=False).latents
    for name, latent in expected.items():
        assert torch.equal(latent, after[name])


class Opens:
    """Counts how often each file below a folder is opened, by Python's audit events."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.paths: list[str] = []
        self.active = True
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.active and event == "open" and str(arguments[0]).startswith(self.folder):
            self.paths.append(str(arguments[0]))


@pytest.mark.slow
def test_every_weight_is_read_once(demo_model: Path) -> None:
    opens = Opens(demo_model)
    engine = open_engine(demo_model)
    engine.generate(small(), keep_frames=False)
    weights = [path for path in opens.paths if path.endswith(".safetensors")]
    assert set(weights) == {str(p) for p in demo_model.rglob("*.safetensors")}

    files = {
        located.file
        for component in engine.source.components.values()
        for located in component.tensors.values()
    }
    taken = {file.path.name: file.bytes_taken for file in files}
    held = {file.path.name: sum(i.nbytes for i in file.tensors.values()) for file in files}
    assert taken == held  # each byte once

    opens.paths.clear()
    engine.generate(small(prompt="Another street", seed=3), keep_frames=False)
    opens.active = False
    assert opens.paths == []
    assert {file.path.name: file.bytes_taken for file in files} == taken


@pytest.fixture(scope="module")
def refusing(demo_model: Path) -> Engine:
    return open_engine(demo_model)


class TestRefusals:
    """Each before any weight is read."""

    @pytest.fixture(autouse=True)
    def _nothing_is_loaded(self, refusing: Engine):
        self.engine = refusing
        yield
        assert self.engine.residency() == []

    def test_prompt_too_long(self) -> None:
        with pytest.raises(RequestError, match="prompt: 1,101 of 1,024 tokens"):
            self.engine.generate(small(prompt="x" * 1100))

    def test_negative_prompt_too_long(self) -> None:
        with pytest.raises(RequestError, match="negative_prompt: 2,001 of 1,024 tokens"):
            self.engine.generate(small(negative_prompt="x" * 2000))

    @pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
    def test_megabytes_are_refused_unread(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        read, tokenize = [], PreTrainedTokenizerFast.__call__
        monkeypatch.setattr(
            PreTrainedTokenizerFast,
            "__call__",
            lambda self, text, **how: read.append(text) or tokenize(self, text, **how),
        )
        with pytest.raises(RequestError, match=f"{name}: 10,000,000 characters are more than"):
            self.engine.prepare(small(**{name: "x" * 10**7}))
        assert max(map(len, read), default=0) < 100

    def test_block_that_is_not_there(self) -> None:
        with pytest.raises(RequestError, match="block 28; the transformer has blocks 0 to 3"):
            self.engine.generate(small(video_guidance=Guidance(stg=1.0, stg_blocks=(28,))))

    def test_missing_image(self) -> None:
        with pytest.raises(MediaError, match=r"cannot read image gone\.png"):
            self.engine.generate(small(images=(ImageCondition(path="gone.png", frame=0),)))

    def test_missing_lora(self) -> None:
        with pytest.raises(CheckpointError, match=r"gone\.safetensors: cannot read the file"):
            self.engine.generate(small(loras=(LoraSpec(path="gone.safetensors"),)))

    def test_lora_of_another_model(self, tmp_path: Path) -> None:
        path = tmp_path / "other.safetensors"
        save_file({"x.lora_A.weight": torch.ones(2, 2), "x.lora_B.weight": torch.ones(2, 2)}, path)
        with pytest.raises(LoraError, match="2 of its 2 keys cannot be applied"):
            self.engine.generate(small(loras=(LoraSpec(path=path),)))

    def test_output_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="does not exist"):
            self.engine.generate(small(), output_path=tmp_path / "gone" / "video.mp4")

    def test_latents_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match="does not exist"):
            self.engine.generate(small(), latents_path=tmp_path / "gone" / "latents.st")


def test_a_long_prompt_is_cut_when_asked(engine: Engine) -> None:
    result = engine.generate(small(prompt="x" * 1100, truncate_prompt=True), keep_frames=False)
    assert result.trace.counts["text_encodings"] >= 1
    longest = engine.prepare(small(prompt="x" * 10**7, truncate_prompt=True))
    assert len(longest.prompts[0]) == 1024


class TestOpening:
    @pytest.mark.slow
    def test_explicit_paths(self, demo_model: Path) -> None:
        engine = open_engine(
            checkpoint_path=demo_model / CHECKPOINT,
            gemma_root=demo_model / GEMMA,
            distilled_lora=demo_model / DISTILLED_LORA,
            spatial_upsampler_path=demo_model / UPSAMPLER,
        )
        assert engine.generate(small(), keep_frames=False).trace.counts["forwards"] == 11

    @pytest.mark.slow
    def test_split_files(self, engine: Engine, demo_model: Path, tmp_path: Path) -> None:
        from entracte.checkpoints.safetensors_file import SafetensorsFile

        whole = SafetensorsFile(demo_model / CHECKPOINT)
        parts = {"transformer": {}, "rest": {}}
        for name in whole.tensors:
            part = "transformer" if name.startswith("model.diffusion_model.") else "rest"
            parts[part][name] = Located(whole, name).tensor()
        for name, tensors in parts.items():
            save_file(tensors, tmp_path / f"{name}.safetensors", whole.metadata)
        split = open_engine(
            checkpoint_path=tuple(tmp_path / f"{name}.safetensors" for name in parts),
            gemma_root=demo_model / GEMMA,
        )
        request = small(pipeline="one-stage")
        latents = [e.generate(request, keep_frames=False).latents for e in (split, engine)]
        assert torch.equal(latents[0]["stage1.video_latent"], latents[1]["stage1.video_latent"])

    def test_no_model(self) -> None:
        with pytest.raises(CheckpointError, match="no model is named: give `model`"):
            Engine.open()

    def test_no_gemma(self, demo_model: Path) -> None:
        with pytest.raises(CheckpointError, match="text encoder is missing: give `gemma_root`"):
            Engine.open(checkpoint_path=demo_model / CHECKPOINT)

    def test_gemma_without_tokenizer(self, demo_model: Path, tmp_path: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes((demo_model / GEMMA / name).read_bytes())
        with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
            Engine.open(demo_model, gemma_root=tmp_path)

    def test_gemma_of_another_kind(self, demo_model: Path, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        with pytest.raises(CheckpointError, match="'llama' model; LTX-2.3 needs gemma3"):
            Engine.open(demo_model, gemma_root=tmp_path)

    def test_a_checkpoint_of_another_model(self, demo_model: Path) -> None:
        with pytest.raises(
            CheckpointError, match="is not an LTX checkpoint: .* tensors begin with"
        ):
            Engine.open(demo_model, checkpoint_path=demo_model / GEMMA / "model.safetensors")

    def test_an_upsampler_of_the_wrong_kind(self, demo_model: Path, tmp_path: Path) -> None:
        import json

        from entracte.checkpoints.safetensors_file import SafetensorsFile

        file = SafetensorsFile(demo_model / UPSAMPLER)
        config = file.config | {"temporal_upsample": True, "spatial_upsample": False}
        tensors = {name: Located(file, name).tensor() for name in file.tensors}
        save_file(tensors, tmp_path / "temporal.st", {"config": json.dumps(config)})
        with pytest.raises(CheckpointError, match="doubles height and width; this one has"):
            Engine.open(demo_model, spatial_upsampler_path=tmp_path / "temporal.st")
        with pytest.raises(CheckpointError, match="is not a latent upsampler"):
            Engine.open(demo_model, spatial_upsampler_path=demo_model / DISTILLED_LORA)

    def test_two_stages_need_their_files(self, demo_model: Path) -> None:
        bare = {"checkpoint_path": demo_model / CHECKPOINT, "gemma_root": demo_model / GEMMA}
        with pytest.raises(CheckpointError, match="needs the latent upsampler"):
            Engine.open(**bare).generate(small())
        with pytest.raises(CheckpointError, match="needs the distilled LoRA"):
            Engine.open(**bare, spatial_upsampler_path=demo_model / UPSAMPLER).generate(small())

    @pytest.mark.parametrize(
        ("device", "why"), [("tpu", "not one of auto"), ("cuda:99", "does not exist")]
    )
    def test_devices(self, demo_model: Path, device: str, why: str) -> None:
        with pytest.raises(RequestError, match=why):
            Engine.open(demo_model, device=device)

    def test_dtype(self, demo_model: Path) -> None:
        with pytest.raises(RequestError, match="'float16' is not one of bfloat16, float32"):
            Engine.open(demo_model, dtype="float16")


def test_what_is_no_request_or_residency_is_refused_in_words(demo_model: Path) -> None:
    with Engine.open(demo_model, residency=Residency("resident")) as engine:
        with pytest.raises(RequestError, match="generate takes a prompt, or a Request"):
            engine.generate(5)  # type: ignore[call-overload]
        with pytest.raises(ResidencyError, match="configure takes a Residency"):
            engine.configure("fused")  # type: ignore[arg-type]
    with pytest.raises(ClosedError, match="the engine is closed; open another"):
        engine.generate(Request("a"))
    with pytest.raises(ClosedError, match="the engine is closed"):
        engine.configure(Residency("fused"))
