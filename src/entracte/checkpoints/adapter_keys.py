"""The keys of LoRA files: from a key to a module and a part of its change."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# A part, and the endings of its keys. `NAME` stands for the adapter's name, which PEFT may add.
NAME = r"(?:\.(?P<adapter>(?!weight$|bias$)\w+))?"
PARTS: tuple[tuple[str, str], ...] = (
    ("down", rf"\.(?:lora_A|lora_down){NAME}(?:\.weight)?"),
    ("up", rf"\.(?:lora_B|lora_up){NAME}(?:\.weight)?"),
    ("down", r"\.(?:lora|lora_linear_layer)\.down\.weight"),
    ("up", r"\.(?:lora|lora_linear_layer)\.up\.weight"),
    ("up_bias", rf"\.(?:lora_B|lora_up){NAME}\.bias"),
    ("magnitude", rf"\.(?:lora_magnitude_vector|dora_scale){NAME}(?:\.weight)?"),
    ("alpha", r"\.alpha"),
    ("diff", r"\.(?:diff|w_norm)"),
    ("diff_bias", r"\.(?:diff_b|b_norm)"),
    *((f"hada_{w}", rf"\.hada_{w}{NAME}") for w in ("w1_a", "w1_b", "w2_a", "w2_b")),
    *((f"lokr_{w}", rf"\.lokr_{w}{NAME}") for w in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")),
)
_PARTS = tuple((part, re.compile(ending + "$")) for part, ending in PARTS)

QUANTISED = "scales of quantised factors"
# Known but unsupported kinds: their names, and the endings of their keys.
UNSUPPORTED: tuple[tuple[str, str], ...] = (
    ("a LoRA with a middle factor (lora_mid)", r"\.lora_mid(?:\.weight)?"),
    ("a LoRA of an embedding", r"\.lora_embedding_[AB](?:\.\w+)?"),
    ("a bias of the first factor", rf"\.(?:lora_A|lora_down){NAME}\.bias"),
    ("LoHa with Tucker decomposition (hada_t1, hada_t2)", r"\.hada_t[12](?:\.\w+)?"),
    ("LoKr with Tucker decomposition (lokr_t2)", r"\.lokr_t[12](?:\.\w+)?"),
    ("a weight that is replaced (set_weight)", r"\.set_weight"),
    ("a weight that is resized (reshape_weight)", r"\.reshape_weight"),
    ("BOFT", r"\.boft_\w+(?:\.\w+)?"),
    ("OFT", r"\.oft_\w+(?:\.\w+)*"),
    ("IA3", r"\.(?:ia3_l|on_input)(?:\.\w+)?"),
    ("GLoRA", r"\.[ab][12]\.weight"),
    ("AdaLoRA", r"\.(?:lora_E|ranknum)(?:\.\w+)?"),
    ("VeRA", r"\.?vera_(?:lambda_[bd]|[AB])(?:\.\w+)?"),
    ("FourierFT", r"\.fourierft_spectrum(?:\.\w+)?"),
    ("a LyCORIS scalar", r"\.scalar"),
    (
        QUANTISED,
        r"(?:^|\.)(?:weight_scale(?:_inv|_2)?|scale_weight|input_scale|scale_input|scaled_fp8|"
        r"comfy_quant|absmax|quant_map|quant_state\.\w+)",
    ),
)
# After everything else: these are the keys of checkpoints, too.
REPLACED = "a weight or bias that is replaced (modules_to_save)"
NOT_KNOWN = "keys that are not known"
_UNSUPPORTED = tuple((kind, re.compile(ending + "$")) for kind, ending in UNSUPPORTED)

# diffusers' first attention processors: `attn1.processor.to_q_lora.down.weight`.
PROCESSOR = re.compile(r"(?:\.processor)?\.(to_q|to_k|to_v|to_out)_lora\.(?=(?:down|up)\.weight$)")


@dataclass(frozen=True, slots=True)
class LoraKey:
    """module: its name in the file. adapter: PEFT's name of it, if in the key."""

    module: str
    part: str
    adapter: str | None = None


def split_key(key: str) -> LoraKey | str:
    """A key's module and part, or the name of its kind if it cannot be applied."""
    for kind, ending in _UNSUPPORTED:
        if ending.search(key):
            return kind
    plain = PROCESSOR.sub(_to_layer, key)
    for part, ending in _PARTS:
        if found := ending.search(plain):
            return LoraKey(plain[: found.start()], part, found.groupdict().get("adapter"))
    return REPLACED if key.endswith((".weight", ".bias")) else NOT_KNOWN


def of_adapter(keys: Iterable[str]) -> bool:
    """Whether these are the keys of an adapter of any kind, not of a checkpoint."""
    return any(_tells(split_key(key)) for key in keys)


def _tells(found: LoraKey | str) -> bool:
    """Whether a key is of adapters alone. Checkpoints have an alpha, too: the vocoder's Snake."""
    if isinstance(found, LoraKey):
        return found.part != "alpha"
    return found not in (REPLACED, NOT_KNOWN, QUANTISED)


def _to_layer(found: re.Match[str]) -> str:
    layer = found[1]
    return f".{layer}.0.lora." if layer == "to_out" else f".{layer}.lora."
