"""Models whose linears are stored in every format: the bits of the same model expanded, and stored
bytes on every way.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from entracte import Engine, LoraSpec, Residency
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.weights_file import open_weights
from entracte.models.formats import Float8, Format, Ggml, Int8, Mxfp8, Nvfp4, ScaledFloat8
from entracte.models.formats.ggml import TYPES
from entracte.residency import Backend
from entracte.residency.backends.host import HostBackend
from entracte.residency.simulated import SimulatedAccelerator
from entracte.synthetic.demo import CHECKPOINT, DISTILLED_LORA
from entracte.synthetic.random_file import Numbers, RandomFile
from entracte.synthetic.random_files import write_tensors

from .test_engine_residency import EXACT, distance, latents, same

PREFIX = "model.diffusion_model."
MIXED: tuple[Format | None, ...] = (
    ScaledFloat8(torch.float8_e4m3fn),
    Nvfp4(high_first=True, blocked=True),
    Mxfp8(),
    None,
    Int8(),
    Int8(16),
    ScaledFloat8(torch.float8_e5m2),
)
WITHOUT_CONVROT = tuple(each for each in MIXED if each != Int8(16))
PLAIN = (Float8(torch.float8_e4m3fn),)
BLOCKS_OF_32 = tuple(Ggml(name) for name, kind in TYPES.items() if kind.size == 32)
BLOCKS_OF_256 = tuple(Ggml(name) for name, kind in TYPES.items() if kind.size == 256)


def choose(formats: tuple[Format | None, ...], demo: SafetensorsFile) -> dict[str, Format]:
    """Another format for every linear of the blocks but the gates, in turn."""
    linears = [
        (key, info.shape)
        for key, info in demo.tensors.items()
        if ".transformer_blocks." in key and len(info.shape) == 2 and info.shape[0] >= 64
    ]
    found = {}
    for place, (key, shape) in enumerate(linears):
        if formats is BLOCKS_OF_32 and shape[1] % 256 == 0:
            found[key] = BLOCKS_OF_256[place % len(BLOCKS_OF_256)]
        else:
            found[key] = formats[place % len(formats)]
    return {key: each for key, each in found.items() if each is not None}


def write_gguf(file: RandomFile, path: Path) -> None:
    """Quantised tensors as they are, without the transformer's prefix."""
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, "ltxv")
    for key, info in file.tensors.items():
        assert isinstance(info.format, Ggml)
        data = torch.empty(info.parts[""].shape, dtype=torch.uint8)
        file.read_stored(key, "", data)
        kind = GGMLQuantizationType[info.format.type]
        writer.add_tensor(key.removeprefix(PREFIX), data.numpy(), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Case:
    """The demonstration model with some weights quantised: `files`, and the same expanded."""

    def __init__(self, demo: Path, folder: Path, formats: tuple[Format | None, ...]) -> None:
        file = SafetensorsFile(demo / CHECKPOINT)
        chosen = choose(formats, file)
        shapes = {key: file.tensors[key].shape for key in chosen}
        weights = RandomFile(folder / "none", shapes, Numbers(), formats=chosen)
        gguf = formats is BLOCKS_OF_32
        quantised = folder / ("quantised.gguf" if gguf else "quantised.safetensors")
        (write_gguf if gguf else write_tensors)(weights, quantised)
        tensors = load_file(demo / CHECKPOINT)
        rest = {key: tensor for key, tensor in tensors.items() if key not in chosen}
        with safe_open(demo / CHECKPOINT, "pt") as opened:
            save_file(rest, folder / "rest.safetensors", opened.metadata())
            for key, info in (stored := open_weights(quantised)).tensors.items():
                full = PREFIX + key.removeprefix(PREFIX)
                assert info.format == chosen[full]
                tensors[full] = torch.empty(info.shape, dtype=torch.bfloat16)
                stored.read(key, tensors[full])
            save_file(tensors, folder / "expanded.safetensors", opened.metadata())
        self.demo, self.folder = demo, folder
        self.files = quantised, folder / "rest.safetensors"
        self.nbytes = sum(info.nbytes for info in weights.tensors.values())
        self.expanded_nbytes = sum(2 * info.parameters for info in weights.tensors.values())

    def open(self, residency: Residency, backend: Backend, expanded: bool = False) -> Engine:
        files = (self.folder / "expanded.safetensors",) if expanded else self.files
        return Engine.open(self.demo, checkpoint_path=files, residency=residency, backend=backend)


@pytest.fixture(scope="module")
def make(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    made: dict[tuple[Format | None, ...], Case] = {}

    def case(formats: tuple[Format | None, ...]) -> Case:
        if formats not in made:
            made[formats] = Case(demo_model, tmp_path_factory.mktemp("model"), formats)
        return made[formats]

    return case


@pytest.fixture(scope="module")
def loras(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LoraSpec, ...]:
    """A LoRA of every linear, and one of a few."""
    folder, generator = tmp_path_factory.mktemp("loras"), torch.Generator().manual_seed(5)
    every = {
        name: torch.randn(tensor.shape, generator=generator).bfloat16() * 0.1
        for name, tensor in load_file(demo_model / DISTILLED_LORA).items()
    }
    few = {name: tensor for name, tensor in every.items() if "attn1.to_q" in name}
    save_file(every, folder / "every.safetensors")
    save_file(few, folder / "few.safetensors")
    return (
        LoraSpec(path=folder / "every.safetensors", strength=0.5),
        LoraSpec(path=folder / "few.safetensors", strength=1.5),
    )


def some(count: int) -> Iterator[Residency]:
    """Modes and dials, the same ones every time."""
    yield from random.Random(3).sample(EXACT, count)


WAYS = [
    pytest.param(formats, backend, count, id=f"{name}-{backend.__name__}-{count}", marks=marks)
    for name, formats in (("mixed", MIXED), ("plain", PLAIN), ("gguf", BLOCKS_OF_32))
    for backend, count, marks in (
        (SimulatedAccelerator, 1, () if formats is MIXED else pytest.mark.slow),
        (HostBackend, len(EXACT), pytest.mark.slow),
        (SimulatedAccelerator, len(EXACT), pytest.mark.slow),
    )
    if count > 1 or formats is not PLAIN
]


@pytest.mark.parametrize(("formats", "backend", "count"), WAYS)
def test_every_mode_gives_the_bits_of_the_expanded_model(
    make: Callable[..., Case],
    loras: tuple[LoraSpec, ...],
    formats: tuple[Format | None, ...],
    backend: type[Backend],
    count: int,
) -> None:
    """With no LoRA but the distilled one, and with two more."""
    case = make(formats)
    with case.open(Residency("resident"), HostBackend(), expanded=True) as engine:
        right = [latents(engine), latents(engine, loras=loras)]
    with case.open(Residency(), backend()) as engine:
        for residency in some(count):
            engine.configure(residency)
            assert same(latents(engine, loras=loras), right[1]), residency
            if count > 1:
                assert same(latents(engine), right[0]), residency


@pytest.mark.slow
@pytest.mark.parametrize("formats", [MIXED, BLOCKS_OF_32], ids=["mixed", "gguf"])
def test_dynamic_computes_from_what_is_stored(
    make: Callable[..., Case], formats: tuple[Format | None, ...]
) -> None:
    case = make(formats)
    with case.open(Residency("resident"), HostBackend(), expanded=True) as engine:
        right = latents(engine)
    with case.open(Residency("dynamic"), HostBackend()) as engine:
        found = latents(engine)
    assert torch.equal(found["stage1.video_latent"], right["stage1.video_latent"])
    assert 0 < distance(found, right) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("formats", [MIXED, BLOCKS_OF_32], ids=["mixed", "gguf"])
def test_stored_bytes_come_over_the_link(
    make: Callable[..., Case], formats: tuple[Format | None, ...]
) -> None:
    """Streamed blocks cross it once a sweep: what quantised weights save there is what they save in
    the file, but for the alignment of tensors.
    """
    case, moved = make(formats), {}
    for expanded in (True, False):
        backend = SimulatedAccelerator()
        with case.open(Residency("fused", resident_blocks=0), backend, expanded) as engine:
            latents(engine)
            before = backend.traffic.bytes_in
            latents(engine)
            moved[expanded] = backend.traffic.bytes_in - before
            sweeps = 2 + 3
    saved = (moved[True] - moved[False]) / sweeps
    assert saved == pytest.approx(case.expanded_nbytes - case.nbytes, rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "formats", [WITHOUT_CONVROT, PLAIN, BLOCKS_OF_32], ids=["mixed", "plain", "gguf"]
)
def test_the_bits_are_those_of_the_expanded_model_on_a_gpu(
    make: Callable[..., Case], formats: tuple[Format | None, ...]
) -> None:
    if formats is BLOCKS_OF_32:
        pytest.importorskip("gguf")
    case, found = make(formats), {}
    for expanded in (True, False):
        files = (case.folder / "expanded.safetensors",) if expanded else case.files
        with Engine.open(case.demo, checkpoint_path=files, device="cuda") as engine:
            found[expanded] = []
            for residency in some(4):
                engine.configure(residency)
                found[expanded].append(latents(engine))
    for residency, left, right in zip(some(4), found[True], found[False], strict=True):
        assert same(left, right), residency


@pytest.mark.gpu
def test_every_mode_gives_the_same_bits_on_a_gpu(make: Callable[..., Case]) -> None:
    """With ConvRot, too, whose products are summed in another order than on a CPU."""
    case = make(MIXED)
    with Engine.open(case.demo, checkpoint_path=case.files, device="cuda") as engine:
        expected = latents(engine)
        for residency in some(4):
            engine.configure(residency)
            assert same(latents(engine), expected), residency


def test_what_is_written_says_its_formats(make: Callable[..., Case]) -> None:
    file = make(MIXED).files[0]
    with safe_open(file, "pt") as opened:
        layers = json.loads(opened.metadata()["_quantization_metadata"])["layers"]
    assert {each["format"] for each in layers.values()} == {
        *("float8_e4m3fn", "float8_e5m2", "nvfp4", "mxfp8", "int8_tensorwise")
    }
