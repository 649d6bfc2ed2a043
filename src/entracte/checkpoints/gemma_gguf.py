"""The text encoder in a GGUF file, as llama.cpp names and stores it."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from entracte.errors import CheckpointError

from .gguf_file import GgufFile
from .gguf_header import GEMMA
from .tensor_info import TensorInfo

BLOCK = "blk."

EMBEDDING = "model.embed_tokens.weight"

# llama.cpp's names of modules, outside of blocks and in each, and ours.
NAMES: Mapping[str, str] = MappingProxyType(
    {"token_embd.weight": EMBEDDING, "output_norm.weight": "model.norm.weight"}
)
IN_BLOCKS: Mapping[str, str] = MappingProxyType(
    {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    }
)

# The head that makes words of states, which is not needed.
UNUSED = ("output.weight",)


class GemmaGguf:
    """A GGUF file of Gemma 3 with the names of `TextEncoder`; see `sources.TensorFile`.

    llama.cpp stores the factors of norms with 1 added, which is taken off in float32 here.
    Raises CheckpointError if the file is damaged, of another model, or has unknown tensors.
    """

    def __init__(self, path: Path) -> None:
        self._file = GgufFile(path)
        self.path = path
        self.metadata = self._file.metadata
        self.config: Mapping[str, Any] = self._file.config
        self.quantised: str | None = None
        if self._file.architecture != GEMMA:
            raise CheckpointError(
                f"{path} is a GGUF file of the architecture {self._file.architecture}; that of "
                f"the text encoder is {GEMMA}"
            )
        keys = [key for key in self._file.tensors if key not in UNUSED]
        self._keys = {_name(path, key): key for key in keys}
        self.tensors: Mapping[str, TensorInfo] = {
            name: self._file.tensors[key] for name, key in self._keys.items()
        }

    def read(self, name: str, out: Tensor) -> None:
        """Read the named tensor into `out`, contiguous host memory of its shape, of any dtype."""
        if not name.endswith("norm.weight"):
            self._file.read(self._keys[name], out)
            return
        factors = torch.empty(out.shape)
        self._file.read(self._keys[name], factors)
        out.copy_(factors - 1)

    def read_stored(self, name: str, end: str, out: Tensor) -> None:
        """Read one of a quantised weight's tensors, by the end of its name, as it is stored."""
        self._file.read_stored(self._keys[name], end, out)

    def check_unchanged(self) -> None:
        """Raise CheckpointChanged if the file was changed or replaced since it was opened."""
        self._file.check_unchanged()


def _name(path: Path, key: str) -> str:
    if key in NAMES:
        return NAMES[key]
    number, _, leaf = key.removeprefix(BLOCK).partition(".")
    module = IN_BLOCKS.get(leaf.removesuffix(".weight"))
    if not key.startswith(BLOCK) or not leaf.endswith(".weight") or module is None:
        raise CheckpointError(f"{path} holds {key}, which Gemma 3 does not have")
    return f"model.layers.{number}.{module}.weight"
