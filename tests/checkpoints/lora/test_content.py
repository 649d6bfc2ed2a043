"""What files hold beside and in place of two factors."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from entracte.errors import LoraError

from .model import ATTENTION, RANK, SHAPES, added, opened, pair, random, write

QUERY = f"{ATTENTION}.to_q"
NAME = f"diffusion_model.{QUERY}"
WEIGHT = random(16, 16, seed=7)
A, B = pair(NAME).values()


def alpha(value: float) -> dict[str, Tensor]:
    return {f"{NAME}.alpha": torch.tensor(value)}


def result(path: Path, tensors: dict[str, Tensor], parameter: str = f"{QUERY}.weight") -> Tensor:
    """The parameter (WEIGHT, or random numbers of its shape) with the file's change."""
    lora = opened(write(path / "lora.safetensors", tensors))
    assert [*lora.changes["transformer"]] == [parameter]
    weight = WEIGHT if parameter == f"{QUERY}.weight" else bias_of(parameter)
    return added(lora, parameter, weight=weight)


def bias_of(parameter: str) -> Tensor:
    return random(*SHAPES["transformer"][parameter], seed=7)


def dora(change: Tensor, magnitude: Tensor, axis: int) -> Tensor:
    changed = WEIGHT + change
    return changed * magnitude / changed.norm(dim=axis, keepdim=True)


ROWS, COLUMNS = random(16, seed=3).abs() + 1, random(1, 16, seed=4).abs() + 1


@pytest.mark.parametrize(
    ("key", "magnitude", "axis"),
    [
        ("dora_scale", ROWS[:, None], 1),
        ("dora_scale", COLUMNS, 0),
        ("lora_magnitude_vector", ROWS, 1),
        ("lora_magnitude_vector.weight", ROWS, 1),
        ("lora_magnitude_vector.default", ROWS, 1),
        ("lora_magnitude_vector.default.weight", ROWS, 1),
    ],
)
def test_dora(tmp_path: Path, key: str, magnitude: Tensor, axis: int) -> None:
    tensors = pair(NAME) | alpha(2) | {f"{NAME}.{key}": magnitude}
    wanted = dora(0.5 * B @ A, magnitude if magnitude.ndim == 2 else magnitude[:, None], axis)
    torch.testing.assert_close(result(tmp_path, tensors), wanted)


def test_loha(tmp_path: Path) -> None:
    parts = {
        "hada_w1_a": random(16, 3),
        "hada_w1_b": random(3, 16),
        "hada_w2_a": random(16, 3, seed=1),
        "hada_w2_b": random(3, 16, seed=1),
    }
    tensors = {f"{NAME}.{key}": tensor for key, tensor in parts.items()} | alpha(1.5)
    a1, b1, a2, b2 = parts.values()
    wanted = WEIGHT + 0.5 * (a1 @ b1) * (a2 @ b2)
    torch.testing.assert_close(result(tmp_path, tensors), wanted)
    magnitude = {f"{NAME}.dora_scale": ROWS[:, None]}
    wanted = dora(0.5 * (a1 @ b1) * (a2 @ b2), ROWS[:, None], 1)
    torch.testing.assert_close(result(tmp_path, tensors | magnitude), wanted)


FIRST, SECOND = random(4, 2), random(4, 8)
FIRST_A, FIRST_B = random(4, 3), random(3, 2)
SECOND_A, SECOND_B = random(4, 2, seed=1), random(2, 8, seed=1)


@pytest.mark.parametrize(
    ("parts", "kron", "scale"),
    [
        # An alpha of two whole matrices means nothing; trainers write anything there.
        ({"w1": FIRST, "w2": SECOND}, (FIRST, SECOND), 1.0),
        ({"w1": FIRST, "w2_a": SECOND_A, "w2_b": SECOND_B}, (FIRST, SECOND_A @ SECOND_B), 4.0),
        ({"w1_a": FIRST_A, "w1_b": FIRST_B, "w2": SECOND}, (FIRST_A @ FIRST_B, SECOND), 8 / 3),
    ],
)
def test_lokr(
    tmp_path: Path, parts: dict[str, Tensor], kron: tuple[Tensor, Tensor], scale: float
) -> None:
    tensors = {f"{NAME}.lokr_{key}": tensor for key, tensor in parts.items()} | alpha(8)
    wanted = WEIGHT + scale * torch.kron(*kron)
    torch.testing.assert_close(result(tmp_path, tensors), wanted)


@pytest.mark.parametrize(
    ("key", "parameter"),
    [
        (f"{NAME}.diff", f"{QUERY}.weight"),
        (f"{NAME}.diff_b", f"{QUERY}.bias"),
        (f"diffusion_model.{ATTENTION}.q_norm.diff", f"{ATTENTION}.q_norm.weight"),
        (f"diffusion_model.{ATTENTION}.q_norm.w_norm", f"{ATTENTION}.q_norm.weight"),
        (f"transformer.{ATTENTION}.norm_q.w_norm", f"{ATTENTION}.q_norm.weight"),
        (
            "diffusion_model.transformer_blocks.0.scale_shift_table.diff",
            "transformer_blocks.0.scale_shift_table",
        ),
        (
            "transformer.transformer_blocks.0.video_a2v_cross_attn_scale_shift_table.diff",
            "transformer_blocks.0.scale_shift_table_a2v_ca_video",
        ),
    ],
)
def test_full_differences(tmp_path: Path, key: str, parameter: str) -> None:
    difference = random(*SHAPES["transformer"][parameter])
    before = WEIGHT if parameter == f"{QUERY}.weight" else bias_of(parameter)
    torch.testing.assert_close(result(tmp_path, {key: difference}, parameter), before + difference)


def test_a_bias_beside_factors(tmp_path: Path) -> None:
    tensors = pair(NAME) | alpha(2) | {f"{NAME}.diff_b": random(16)}
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    torch.testing.assert_close(added(lora, f"{QUERY}.weight"), 0.5 * B @ A)
    torch.testing.assert_close(added(lora, f"{QUERY}.bias"), random(16))


def test_the_second_factors_bias_has_its_scale(tmp_path: Path) -> None:
    for key in ("lora_B.bias", "lora_up.bias", "lora_B.default.bias"):
        tensors = pair(NAME) | alpha(2) | {f"{NAME}.{key}": random(16)}
        lora = opened(write(tmp_path / "lora.safetensors", tensors))
        torch.testing.assert_close(added(lora, f"{QUERY}.bias"), 0.5 * random(16))


FUSED = {"to_qkv": ("to_q", "to_k", "to_v"), "qkv": ("to_q", "to_k", "to_v")}
FUSED |= {"to_kv": ("to_k", "to_v")}


@pytest.mark.parametrize("layer", FUSED)
@pytest.mark.parametrize("form", ["diffusion_model.{}", "lora_unet_{}"])
def test_fused_projections_are_split(tmp_path: Path, layer: str, form: str) -> None:
    name = f"{ATTENTION}.{layer}"
    name = form.format(name.replace(".", "_") if "_{" in form else name)
    rows = 16 * len(FUSED[layer])
    tensors = {
        f"{name}.lora_down.weight": A,
        f"{name}.lora_up.weight": random(rows, RANK),
        f"{name}.alpha": torch.tensor(2.0),
        f"{name}.diff_b": random(rows),
        f"{name}.dora_scale": random(rows, 1).abs() + 1,
    }
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    whole = 0.5 * random(rows, RANK) @ A
    for number, part in enumerate(FUSED[layer]):
        here = slice(16 * number, 16 * number + 16)
        changed = WEIGHT + whole[here]
        wanted = changed * (random(rows, 1).abs() + 1)[here] / changed.norm(dim=1, keepdim=True)
        found = added(lora, f"{ATTENTION}.{part}.weight", weight=WEIGHT)
        torch.testing.assert_close(found, wanted)
        found = added(lora, f"{ATTENTION}.{part}.bias")
        torch.testing.assert_close(found, random(rows)[here])


def test_fused_projections_of_other_kinds(tmp_path: Path) -> None:
    name = f"diffusion_model.{ATTENTION}.to_qkv"
    tensors = {f"{name}.diff": random(48, 16)}
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    torch.testing.assert_close(added(lora, f"{ATTENTION}.to_k.weight"), random(48, 16)[16:32])
    hada = {"hada_w1_a": (48, 2), "hada_w1_b": (2, 16), "hada_w2_a": (48, 2), "hada_w2_b": (2, 16)}
    parts = {part: random(*shape) for part, shape in hada.items()}
    tensors = {f"{name}.{part}": tensor for part, tensor in parts.items()}
    lora = opened(write(tmp_path / "lora.safetensors", tensors))
    a1, b1, a2, b2 = parts.values()
    wanted = ((a1 @ b1) * (a2 @ b2))[32:]
    torch.testing.assert_close(added(lora, f"{ATTENTION}.to_v.weight"), wanted)
    tensors = {f"{name}.lokr_w1": random(3, 2), f"{name}.lokr_w2": random(16, 8)}
    with pytest.raises(LoraError, match=r"to_qkv .*LoKr of a fused projection"):
        opened(write(tmp_path / "lora.safetensors", tensors))
    tensors = {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": random(32, RANK)}
    with pytest.raises(LoraError, match=r"to_qkv does not fit.*\[16, 16\] and \[16, 16\]"):
        opened(write(tmp_path / "lora.safetensors", tensors))
    with pytest.raises(LoraError, match="both change .*to_q.weight"):
        opened(
            write(
                tmp_path / "lora.safetensors",
                pair(NAME)
                | {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": random(48, RANK)},
            )
        )


UNSUPPORTED = {
    "lora_mid.weight": "middle factor",
    "lora_A.bias": "bias of the first factor",
    "lora_embedding_A": "embedding",
    "hada_t1": "LoHa with Tucker decomposition",
    "lokr_t2": "LoKr with Tucker decomposition",
    "set_weight": "set_weight",
    "reshape_weight": "reshape_weight",
    "oft_blocks": "OFT",
    "oft_R.default.weight": "OFT",
    "oft_diag": "OFT",
    "boft_R": "BOFT",
    "ia3_l": "IA3",
    "on_input": "IA3",
    "a1.weight": "GLoRA",
    "lora_E": "AdaLoRA",
    "vera_lambda_b": "VeRA",
    "fourierft_spectrum": "FourierFT",
    "scalar": "LyCORIS scalar",
    "lora_A.weight_scale": "scales of quantised factors",
    "weight_scale": "scales of quantised factors",
    "scale_weight": "scales of quantised factors",
    "weight": "modules_to_save",
    "bias": "modules_to_save",
    "something_new": "keys that are not known",
}


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_what_is_not_supported_is_named(tmp_path: Path, key: str) -> None:
    """It makes another thing of the factors beside it, so that these are not applied alone."""
    other = f"diffusion_model.{ATTENTION}.to_k"
    tensors = pair(NAME) | pair(other) | {f"{NAME}.{key}": random(4)}
    path = write(tmp_path / "style.safetensors", tensors)
    with pytest.raises(LoraError) as refused:
        opened(path)
    assert refused.value.partly
    for words in (str(path), "of its 5 keys cannot be applied", UNSUPPORTED[key], f"{NAME}.{key}"):
        assert words in str(refused.value)
    lora = opened(path, partial=True)
    assert [*lora.changes["transformer"]] == [f"{ATTENTION}.to_k.weight"]
    (notice,) = lora.notices
    assert UNSUPPORTED[key] in notice.message
    assert f"{NAME}.{key}" in notice.keys


NOT_ADAPTERS = (
    "weight",
    "bias",
    "something_new",
    "weight_scale",
    "scale_weight",
    "lora_A.weight_scale",
)


@pytest.mark.parametrize("key", sorted(UNSUPPORTED.keys() - set(NOT_ADAPTERS)))
def test_alone_it_is_named_too(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "style.safetensors", {f"{NAME}.{key}": random(4)})
    for partial in (False, True):
        with pytest.raises(LoraError, match=UNSUPPORTED[key]):
            opened(path, partial)


def test_keys_of_unknown_modules(tmp_path: Path) -> None:
    tensors = pair(NAME) | pair("diffusion_model.transformer_blocks.0.attn9.to_q")
    path = write(tmp_path / "style.safetensors", tensors)
    with pytest.raises(LoraError, match=r"2 of its 4 keys.*attn9\.to_q\.lora_A"):
        opened(path)
    lora = opened(path, partial=True)
    assert [*lora.changes["transformer"]] == [f"{QUERY}.weight"]
    assert all("attn9" in key for key in lora.notices[0].keys)


TOGETHER = {
    "a LoRA and a LoHa": (pair(NAME) | {f"{NAME}.hada_w1_a": A}, "LoRA and a LoHa"),
    "a LoRA and a difference": (pair(NAME) | {f"{NAME}.diff": WEIGHT}, "a full difference"),
    "one factor": ({f"{NAME}.lora_A.weight": A}, "no up"),
    "the other factor": ({f"{NAME}.lora_up.weight": B}, "no down"),
    "part of a LoHa": ({f"{NAME}.hada_w1_a": B, f"{NAME}.hada_w1_b": A}, "no hada_w2_a"),
    "half a LoKr": ({f"{NAME}.lokr_w1": FIRST}, "no lokr_w2_a and no lokr_w2_b"),
    "a LoKr twice": (
        {f"{NAME}.lokr_w1": FIRST, f"{NAME}.lokr_w1_a": FIRST_A, f"{NAME}.lokr_w2": SECOND},
        "both whole and in factors",
    ),
    "a magnitude alone": ({f"{NAME}.dora_scale": ROWS[:, None]}, "no factors"),
    "an alpha alone": (pair(f"{ATTENTION}.to_k") | alpha(2), "no factors"),
    "an alpha and a difference": ({f"{NAME}.diff": WEIGHT} | alpha(2), "full difference beside"),
    "a magnitude and a bias": (
        pair(NAME) | {f"{NAME}.dora_scale": ROWS[:, None], f"{NAME}.lora_B.bias": ROWS},
        "exclude each other",
    ),
    "two biases": (
        pair(NAME) | {f"{NAME}.diff_b": ROWS, f"{NAME}.lora_B.bias": ROWS}, "both change"),
    "a bias of nothing": (
        {f"diffusion_model.{ATTENTION}.q_norm.diff_b": ROWS}, "a bias, which"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOGETHER)
def test_what_does_not_go_together(tmp_path: Path, name: str) -> None:
    tensors, words = TOGETHER[name]
    path = write(tmp_path / "lora.safetensors", tensors)
    for partial in (False, True):
        with pytest.raises(LoraError, match=words):
            opened(path, partial)


MISFITS = {
    "of another model": {"lora_A.weight": (4, 32), "lora_B.weight": (32, 4)},
    "of two ranks": {"lora_A.weight": (4, 16), "lora_B.weight": (16, 3)},
    "the other way round": {"lora_A.weight": (16, 4), "lora_B.weight": (4, 16)},
    "of one dimension": {"lora_A.weight": (16,), "lora_B.weight": (16, 1)},
    "of four dimensions": {"lora_A.weight": (4, 16, 1, 1), "lora_B.weight": (16, 4, 1, 1)},
    "magnitude": {"lora_A.weight": (4, 16), "lora_B.weight": (16, 4), "dora_scale": (8, 1)},
    "bias": {"diff_b": (15,)},
    "difference": {"diff": (16, 17)},
    "difference of one number": {"diff": (1,)},
    "LoHa": {
        "hada_w1_a": (16, 2),
        "hada_w1_b": (2, 16),
        "hada_w2_a": (16, 2),
        "hada_w2_b": (3, 16),
    },
    "LoKr": {"lokr_w1": (4, 4), "lokr_w2": (4, 5)},
    "LoKr of two ranks": {"lokr_w1_a": (4, 2), "lokr_w1_b": (3, 4), "lokr_w2": (4, 4)},
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit(tmp_path: Path, name: str) -> None:
    tensors = {f"{NAME}.{key}": random(*shape) for key, shape in MISFITS[name].items()}
    path = write(tmp_path / "lora.safetensors", tensors)
    with pytest.raises(LoraError, match="does not fit|dimensions") as refused:
        opened(path, partial=True)
    assert QUERY in str(refused.value)
    assert not refused.value.partly
