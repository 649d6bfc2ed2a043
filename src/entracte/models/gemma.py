"""The text encoder: the language half of Gemma 3, and its tokenizer, from transformers.

transformers is imported when one is built: that takes seconds.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from entracte.errors import CheckpointError, RequestError

from .calls import Call, call_plainly
from .language_model import LanguageModel

if TYPE_CHECKING:
    from transformers import Gemma3Config

MAX_TOKENS = 1024

# On a GPU a prompt takes the first of these numbers of rows that it fits into: few shapes, so that
# their graphs are soon captured. A GPU reads the weights in the time that 256 rows take to compute.
ROWS = (256, 512, MAX_TOKENS)

# How keys of the language half begin: as published, and as newer transformers save it.
PREFIXES = ("language_model.model.", "model.language_model.")

# And in files of the language half alone.
BARE = ("model.layers.", "model.embed_tokens.", "model.norm.")


class TextEncoder(LanguageModel):
    """The language half of Gemma 3.

    The layers are those of transformers. The loop over them is ours: it keeps the states, and its
    layers may be loaded one by one.
    """

    def __init__(self, config: "Gemma3Config") -> None:
        from transformers import Gemma3TextModel

        from .gemma_norm import use_quick_norms

        super().__init__()
        self.config = config.text_config
        self.width, self.layers = self.config.hidden_size, self.config.num_hidden_layers
        self.config._attn_implementation = "sdpa"
        self.model = Gemma3TextModel(self.config)
        use_quick_norms(self.model)

    def restore_buffers(self) -> None:
        from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding

        self.model.rotary_emb = Gemma3RotaryEmbedding(self.config)
        embedding = self.model.embed_tokens
        embedding.embed_scale = torch.tensor(embedding.scalar_embed_scale)

    def forward(self, tokens: Tensor, call: Call = call_plainly) -> Tensor:
        """In training the prompt was padded on the left to 1,024 tokens, and so it is on a CPU,
        whose states are the official ones. Elsewhere only the prompt is computed, at the positions
        that it has there: padding is not attended to, so that all that differs is the rounding.
        """
        if tokens.device.type == "cpu" or rows_of(tokens) > self.config.sliding_window:
            return self.padded(tokens, call)
        return self.alone(tokens, call)

    def padded(self, tokens: Tensor, call: Call = call_plainly) -> Tensor:
        """As in training; see `forward`."""
        from transformers.masking_utils import (
            create_causal_mask,
            create_sliding_window_causal_mask,
        )

        padding = MAX_TOKENS - len(tokens)
        ids = tokens.new_full((1, MAX_TOKENS), self.config.pad_token_id)
        ids[0, padding:] = tokens
        mask = torch.zeros_like(ids)
        mask[0, padding:] = 1
        positions = torch.arange(MAX_TOKENS, device=ids.device)[None]
        x = self.model.embed_tokens(ids)
        masking = {
            "config": self.config,
            "inputs_embeds": x,
            "attention_mask": mask,
            "past_key_values": None,
            "position_ids": positions,
        }
        masks = {
            "full_attention": create_causal_mask(**masking),
            "sliding_attention": create_sliding_window_causal_mask(**masking),
        }
        return self._states(x, positions, masks, slice(padding, None), call)

    def alone(self, tokens: Tensor, call: Call = call_plainly) -> Tensor:
        """Without padding, for prompts that a sliding layer attends to as a whole; see `forward`.

        What fills its rows comes last, where causal attention hides it without a mask.
        """
        rows = rows_of(tokens)
        ids = tokens.new_full((1, rows), self.config.pad_token_id)
        ids[0, : len(tokens)] = tokens
        positions = torch.arange(rows, device=ids.device)[None] + (MAX_TOKENS - len(tokens))
        masks = {"full_attention": None, "sliding_attention": None}
        x = self.model.embed_tokens(ids)
        return self._states(x, positions, masks, slice(None, len(tokens)), call)

    def _states(
        self,
        x: Tensor,
        positions: Tensor,
        masks: Mapping[str, Tensor | None],
        prompt: slice,
        call: Call,
    ) -> Tensor:
        """Run all layers. prompt: where its tokens are in x."""
        rotary = {kind: self.model.rotary_emb(x, positions, kind) for kind in masks}
        states = []
        for layer, kind in zip(self.model.layers, self.config.layer_types, strict=True):
            states.append(x[0, prompt])
            mask = masks[kind]
            x = call(_layer, layer, x, *rotary[kind], *([] if mask is None else [mask]))
        states.append(self.model.norm(x)[0, prompt])
        return torch.stack(states, dim=-1)


def _layer(
    layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None = None
) -> Tensor:
    """One of transformers' layers. Its kind is in what it is given: the angles and the mask."""
    out: Tensor = layer(x, attention_mask=mask, position_embeddings=(cos, sin))
    return out


def rows_of(tokens: Tensor) -> int:
    """How many rows a prompt takes where it is not padded as in training."""
    return next(rows for rows in ROWS if len(tokens) <= rows)


def file_to_module(key: str) -> str | None:
    """A key of the Gemma folder as a parameter name of TextEncoder; None for the vision half."""
    for prefix in PREFIXES:
        if key.startswith(prefix):
            return "model." + key.removeprefix(prefix)
    return key if key.startswith(BARE) else None


def module_to_file(name: str) -> str:
    """A parameter name of TextEncoder as a key of the published folder."""
    return PREFIXES[0] + name.removeprefix("model.")


def full_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """A Gemma 3 `config.json` with transformers' defaults filled in; raises CheckpointError."""
    from transformers import Gemma3Config

    try:
        found: dict[str, Any] = Gemma3Config(**values).to_dict()
    except Exception as error:  # transformers raises errors of many kinds for wrong values
        raise CheckpointError(f"not a config of Gemma 3 ({_in_a_line(error)})") from None
    return found


@dataclass(frozen=True, slots=True)
class TokenizerText:
    """A `tokenizer.json` that is a part of another file.

    start: the token that prompts begin with, which such a tokenizer does not set itself.
    """

    path: Path
    text: str
    start: int


class Tokenizer:
    """Turns a prompt's text into token ids.

    root: the folder of `tokenizer.json`, or its text. vocabulary: how many tokens the text encoder
        knows.
    Raises CheckpointError if the folder holds no tokenizer, or one of another model.
    """

    def __init__(self, root: Path | TokenizerText, vocabulary: int) -> None:
        import tokenizers
        from transformers import PreTrainedTokenizerFast

        self._root = root if isinstance(root, Path) else root.path
        self._start: list[int] = [] if isinstance(root, Path) else [root.start]
        with self._reading():
            if isinstance(root, Path):
                self._tokenizer = PreTrainedTokenizerFast.from_pretrained(str(root))
            else:
                parsed = tokenizers.Tokenizer.from_str(root.text)
                self._tokenizer = PreTrainedTokenizerFast(tokenizer_object=parsed)
            known = self._tokenizer.get_vocab()
        largest = max(known.values(), default=-1)
        if not 0 <= largest < vocabulary:
            raise CheckpointError(
                f"the tokenizer in {root} has tokens up to {largest:,}; the text encoder has "
                f"{vocabulary:,} tokens"
            )
        # Characters of a prompt of nothing but the longest token: more are not even looked at.
        self._longest = MAX_TOKENS * max(map(len, known))

    def encode(self, text: str, truncate: bool = False, name: str = "prompt") -> Tensor:
        """Token ids [tokens] int64, the start token included.

        Raises RequestError for more than 1,024 tokens unless `truncate` cuts them off; `name` is
        what the error calls the text.
        """
        text = text.strip()
        if len(text) > self._longest and not truncate:
            raise RequestError(
                f"{name}: {len(text):,} characters are more than {MAX_TOKENS:,} tokens can hold. "
                "Shorten it, or allow the rest to be cut off (truncate_prompt)"
            )
        with self._reading():
            tokens = self._tokenizer(text[: self._longest], add_special_tokens=True)["input_ids"]
        if tokens[:1] != self._start:
            tokens = [*self._start, *tokens]
        if len(tokens) > MAX_TOKENS and not truncate:
            raise RequestError(
                f"{name}: {len(tokens):,} of {MAX_TOKENS:,} tokens. Shorten it, or allow the rest "
                "to be cut off (truncate_prompt)"
            )
        return torch.tensor(tokens[:MAX_TOKENS], dtype=torch.int64)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what transformers and tokenizers raise for bad files into CheckpointError."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of tokenizers, in Rust, is not an Exception
            raise CheckpointError(
                f"{self._root} has no usable tokenizer.json ({_in_a_line(error)})"
            ) from None


def _in_a_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
