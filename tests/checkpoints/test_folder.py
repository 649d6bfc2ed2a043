"""What is taken of a folder with more than a model needs, and what is said of it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from entracte.checkpoints.loading import build_component
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.model_header import ModelHeader, read_model_header
from entracte.checkpoints.official import newest, version_of
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import ModelSource
from entracte.errors import CheckpointError
from entracte.models.registry import LTX_2_3
from entracte.synthetic.demo import CHECKPOINT, DISTILLED_LORA, GEMMA, UPSAMPLER


@pytest.fixture
def folder(demo_model: Path, tmp_path: Path) -> Path:
    for name in (CHECKPOINT, DISTILLED_LORA, UPSAMPLER, GEMMA):
        (tmp_path / name).symlink_to(demo_model / name)
    return tmp_path


def opened(folder: Path, distilled: bool = False) -> ModelSource:
    source = open_model(str(folder), ModelPaths(), distilled)
    # What a server is told of it by its header alone.
    told = read_model_header(str(folder), (), distilled)
    layers = source.components["transformer"].config["num_layers"]
    assert told == ModelHeader(source.version.name, layers)
    return source


def transformer_file(source: ModelSource) -> str:
    return next(iter(source.components["transformer"].tensors.values())).file.path.name


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("ltx-2.3-22b-distilled-lora-384.safetensors", (1, 0)),
        ("ltx-2.3-22b-distilled-lora-384-1.1.safetensors", (1, 1)),
        ("ltx-2.3-spatial-upscaler-x1.5-1.0.safetensors", (1, 0)),
        ("ltx-2.3-22b-dev.safetensors", (1, 0)),
        ("x-1.10", (1, 10)),
    ],
)
def test_versions_of_names(name: str, version: tuple[int, ...]) -> None:
    assert version_of(name) == version


def test_versions_are_numbers() -> None:
    assert newest(["a-1.9", "a-1.10", "a"]) == "a-1.10"


@pytest.mark.parametrize(
    ("original", "older", "newer"),
    [
        (
            DISTILLED_LORA,
            "ltx-2.3-22b-distilled-lora-384.safetensors",
            "ltx-2.3-22b-distilled-lora-384-1.1.safetensors",
        ),
        (
            UPSAMPLER,
            "ltx-2.3-spatial-upscaler-x2-1.0.safetensors",
            "ltx-2.3-spatial-upscaler-x2-1.1.safetensors",
        ),
        (CHECKPOINT, "ltx-2.3-22b-dev.safetensors", "ltx-2.3-22b-dev-1.1.safetensors"),
    ],
)
def test_the_newest_is_taken_and_said(
    folder: Path, demo_model: Path, original: str, older: str, newer: str
) -> None:
    (folder / original).unlink()
    for name in (older, newer):
        (folder / name).symlink_to(demo_model / original)
    source = opened(folder)
    assert source.distilled_lora is not None
    lora = source.distilled_lora[0].path.name
    upsampler = next(iter(source.components["upsampler"].tensors.values())).file.path.name
    assert newer in (lora, upsampler, transformer_file(source))
    assert any(f"taking {newer}, the newest" in note and older in note for note in source.notes)


FOREIGN = {
    "._ltx-2.3.safetensors": b"\x00\x05\x16\x07 metadata of macOS",
    "broken.safetensors": b"nothing that could be read",
    "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "page.safetensors": b"<!DOCTYPE html><html><body>404</body></html>",
    "empty.safetensors": b"",
    "model-Q4_K_M.gguf": b"GGUF\x03\x00\x00\x00" + bytes(64),
    "old.ckpt": b"PK\x03\x04" + bytes(64),
    "notes.txt": b"anything",
}


def header(**tensors: tuple[str, list[int], int]) -> bytes:
    """A safetensors file with zeros: dtype, shape and bytes of every tensor."""
    entries, end = {}, 0
    for name, (dtype, shape, nbytes) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


@pytest.mark.parametrize("name", [*FOREIGN, "four-bits.safetensors", "other.safetensors"])
def test_foreign_files_do_not_matter(folder: Path, name: str) -> None:
    made = {
        "four-bits.safetensors": header(x=("F4", [4], 2)),
        "other.safetensors": header(x=("F32", [1], 4)),
    }
    (folder / name).write_bytes((FOREIGN | made)[name])
    source = opened(folder)
    hidden = name.startswith(".") or name == "notes.txt"
    assert any(name in note for note in source.notes) != hidden


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken.safetensors", "is not a safetensors file"),
        ("pointer.safetensors", "Git LFS pointer, not the file .*git lfs pull"),
        ("page.safetensors", "it is a web page.*download the file itself"),
        ("empty.safetensors", "it has 0 bytes"),
        ("model-Q4_K_M.gguf", "a GGUF file of the architecture None"),
        ("old.ckpt", "a zip archive, perhaps a PyTorch pickle"),
    ],
)
def test_what_cannot_be_read_is_named_where_it_is_missing(
    folder: Path, name: str, words: str
) -> None:
    (folder / CHECKPOINT).unlink()
    (folder / name).write_bytes(FOREIGN[name])
    with pytest.raises(CheckpointError, match=rf"(?s)holds no LTX checkpoint.*{name}.*{words}"):
        opened(folder)


def test_a_checkpoint_of_another_version_beside_ours_is_skipped(
    folder: Path, demo_model: Path
) -> None:
    config = {"transformer": {}}
    metadata = {"config": json.dumps(config), "model_version": "2.9.0"}
    save_file(
        {"model.diffusion_model.x": torch.zeros(1)}, folder / "ltx-2-19b.safetensors", metadata
    )
    source = opened(folder)
    assert transformer_file(source) == CHECKPOINT
    assert any("is LTX-2.9" in note for note in source.notes)


class TestShards:
    @pytest.fixture
    def sharded(self, folder: Path) -> Path:
        """The checkpoint in three shards; only the first has the config."""
        metadata = dict(SafetensorsFile(folder / CHECKPOINT).metadata)
        tensors = load_file(folder / CHECKPOINT)
        (folder / CHECKPOINT).unlink()
        weight_map = {}
        for number in range(3):
            name = f"model-{number + 1:05}-of-00003.safetensors"
            part = {key: tensors[key] for key in sorted(tensors)[number::3]}
            save_file(part, folder / name, metadata if number == 0 else None)
            weight_map |= dict.fromkeys(part, name)
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return folder

    def check(self, source: ModelSource) -> None:
        for component in source.components.values():
            build_component(component, LTX_2_3)  # every tensor is there

    def test_a_folder(self, sharded: Path) -> None:
        self.check(opened(sharded))

    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("index", [True, False])
    @pytest.mark.parametrize(
        "named",
        [
            (".",),
            ("model-00002-of-00003.safetensors",),
            ("model-00003-of-00003.safetensors", "model-00001-of-00003.safetensors"),
        ],
    )
    def test_explicit_paths(self, sharded: Path, named: tuple[str, ...], index: bool) -> None:
        if not index:
            (sharded / "model.safetensors.index.json").unlink()
        paths = ModelPaths(tuple(sharded / name for name in named), gemma_root=sharded / GEMMA)
        self.check(open_model(None, paths, distilled=False))

    def test_the_index(self, sharded: Path) -> None:
        index = sharded / "model.safetensors.index.json"
        self.check(open_model(None, ModelPaths((index,), sharded / GEMMA), distilled=False))

    def test_a_shard_that_is_missing(self, sharded: Path) -> None:
        (sharded / "model-00002-of-00003.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors: No such"):
            opened(sharded)

    @pytest.mark.sampled(4)
    @pytest.mark.parametrize(
        "weight_map",
        [
            {"x": "/etc/passwd"},
            {"x": "../model.safetensors"},
            {"x": "a/b.safetensors"},
            {"x": ".hidden.safetensors"},
            {"x": "a\\b.safetensors"},
            {"x": "a\x00.safetensors"},
            {"x": 5},
            {"x": None},
            {"x": ["a.safetensors"]},
            {},
            [],
            "a.safetensors",
            None,
        ],
    )
    def test_indices_that_name_what_is_not_beside_them(
        self, sharded: Path, weight_map: object
    ) -> None:
        index = sharded / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(CheckpointError, match="is not an index of shards|names no shards"):
            open_model(None, ModelPaths((index,)), distilled=False)


class TestGemma:
    def other(self, folder: Path, name: str, **text_config: int) -> Path:
        """A copy of the text encoder with another config."""
        shutil.copytree(folder / GEMMA, folder / name)
        config = json.loads((folder / name / "config.json").read_text())
        config["text_config"] |= text_config
        (folder / name / "config.json").write_text(json.dumps(config))
        return folder / name

    def narrower(self, folder: Path, name: str) -> Path:
        """A text encoder with a layer less."""
        layers = json.loads((folder / GEMMA / "config.json").read_text())["text_config"]
        count = layers["num_hidden_layers"] - 1
        changes = {"num_hidden_layers": count}
        if "layer_types" in layers:
            changes["layer_types"] = layers["layer_types"][:count]
        root = self.other(folder, name, **changes)
        tensors = load_file(root / "model.safetensors")
        kept = {key: t for key, t in tensors.items() if f".layers.{count}." not in key}
        save_file(kept, root / "model.safetensors")
        return root

    def test_the_one_that_fits_is_taken(self, folder: Path) -> None:
        self.narrower(folder, "zz-smaller")
        source = opened(folder)
        assert source.tokenizer.name == GEMMA
        assert any("the one that fits" in note for note in source.notes)

    def test_one_that_does_not_fit_is_refused_at_opening(self, folder: Path) -> None:
        root = self.narrower(folder, "smaller")
        with pytest.raises(CheckpointError, match="is not the text encoder of .* layers of width"):
            open_model(str(folder), ModelPaths(gemma_root=root), distilled=False)

    def test_two_that_fit(self, folder: Path) -> None:
        self.other(folder, "another")
        with pytest.raises(CheckpointError, match=r"several text encoders that fit \(another, "):
            opened(folder)
        self.other(folder, "gemma-3-12b-it-qat-q4_0-unquantized")
        assert opened(folder).tokenizer.name == "gemma-3-12b-it-qat-q4_0-unquantized"

    def test_a_file(self, folder: Path) -> None:
        paths = ModelPaths(gemma_root=folder / GEMMA / "model.safetensors")
        with pytest.raises(CheckpointError, match="is a file; the text encoder is a folder with"):
            open_model(str(folder), paths, distilled=False)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, r"has no tokenizer\.json"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
            (b"", r"tokenizer\.json is not JSON"),
            (b"null", "it is not an object"),
            (b"[" * 100_000, "it is nested too deeply"),
        ],
    )
    def test_tokenizers(self, folder: Path, content: bytes | None, words: str) -> None:
        root = self.other(folder, "second")
        (folder / GEMMA).unlink()
        (root / "tokenizer.json").unlink()
        if content is not None:
            (root / "tokenizer.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            opened(folder)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"num_hidden_layers": 10**9}, "num_hidden_layers: Input should be less than"),
            ({"num_hidden_layers": 900}, "says num_hidden_layers=900; the weights beside it have"),
            ({"hidden_size": 0}, "hidden_size: Input should be greater than 0"),
            ({"hidden_size": "64"}, "hidden_size: Input should be a valid integer"),
            ({"vocab_size": -1}, "vocab_size: Input should be greater than 0"),
            ({"layer_types": 5}, "layer_types: Input should be a valid list"),
        ],
    )
    def test_configs(self, folder: Path, changes: dict[str, int], words: str) -> None:
        root = self.other(folder, "second", **changes)
        with pytest.raises(CheckpointError, match=words):
            open_model(str(folder), ModelPaths(gemma_root=root), distilled=False)
