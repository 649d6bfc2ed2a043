"""The text side: a tokenizer made from the world's captions, and encoder and connectors in batches.

They are trained together with the transformer, end to end.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor, nn
from transformers import Gemma3Config

from entracte.models.connectors import (
    CONTEXT_TOKENS,
    Connector,
    ConnectorBlock,
    Connectors,
    Projections,
)
from entracte.models.gemma import TextEncoder
from entracte.synthetic.demo_config import SPECIAL_TOKENS
from entracte.versions import DEFAULTS_2_3

from .flow import attention, feed_forward, normed
from .sizes import GEMMA, TRANSFORMER, text_width
from .world import captions, sample_scenes

# What a batch has room for; the default negative prompt is the longest text.
TOKENS = 192

# The tokenizer is made from so many captions.
CORPUS = 20_000


def new_tokenizer(corpus: int = CORPUS) -> Tokenizer:
    """Byte pairs of the captions and of the default negative prompt, in lower case."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=GEMMA["text_config"]["vocab_size"],
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = captions(sample_scenes(corpus, 0), 0)
    # Once would be too seldom for its words to become tokens.
    texts += [DEFAULTS_2_3.negative_prompt] * 20
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", SPECIAL_TOKENS.index("<bos>"))]
    )
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that the engine reads into an existing folder."""
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("pad_token", "eos_token", "bos_token", "unk_token")
    special = dict(zip(names, SPECIAL_TOKENS, strict=True))
    (folder / "tokenizer_config.json").write_text(json.dumps(special, indent=1))


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """[texts, TOKENS] int16, filled up with the padding token at the end, which is 0."""
    ids = torch.zeros(len(texts), TOKENS, dtype=torch.int16)
    for row, encoding in enumerate(tokenizer.encode_batch(list(texts))):
        kept = encoding.ids[:TOKENS]
        ids[row, : len(kept)] = torch.tensor(kept, dtype=torch.int16)
    return ids


class TextSide(nn.Module):
    """The text encoder and the connectors, for a batch of token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TextEncoder(Gemma3Config(**GEMMA))
        self.connectors = Connectors(TRANSFORMER, text_width())
        self.connectors.restore_buffers()
        for connector in (
            self.connectors.video_embeddings_connector,
            self.connectors.audio_embeddings_connector,
        ):
            nn.init.normal_(connector.learnable_registers, std=0.5)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """[B, TOKENS] to contexts of video and audio, [B, 1024, width of the stream]."""
        ids = ids.long()
        there = ids != 0
        states = self.states(ids, there)
        projections = self.connectors.text_embedding_projection
        assert isinstance(projections, Projections)
        variance = states.float().square().mean(dim=2, keepdim=True)
        scaled = (states * torch.rsqrt(variance + 1e-6)).flatten(2)
        contexts = []
        for project, connector in (
            (projections.video_aggregate_embed, self.connectors.video_embeddings_connector),
            (projections.audio_aggregate_embed, self.connectors.audio_embeddings_connector),
        ):
            projected = project(scaled * math.sqrt(project.out_features / states.shape[2]))
            contexts.append(connected(connector, projected, there))
        return contexts[0], contexts[1]

    def states(self, ids: Tensor, there: Tensor) -> Tensor:
        """[B, TOKENS, width, layers + 1]; what follows a prompt is hidden by causality.

        Positions are those that the engine gives a prompt, which it pads on the left.
        """
        model = self.encoder.model
        positions = torch.arange(ids.shape[1], device=ids.device) + CONTEXT_TOKENS
        positions = positions - there.sum(1, keepdim=True)
        x = model.embed_tokens(ids)
        rotary = {
            kind: model.rotary_emb(x, positions, kind) for kind in self.encoder.config.layer_types
        }
        states = []
        for layer, kind in zip(model.layers, self.encoder.config.layer_types, strict=True):
            states.append(x)
            x = layer(x, attention_mask=None, position_embeddings=rotary[kind])
        states.append(model.norm(x))
        return torch.stack(states, dim=-1)


def connected(connector: Connector, tokens: Tensor, there: Tensor) -> Tensor:
    """A connector's context: prompts' tokens [B, n, width] first, registers in all other places."""
    count = tokens.shape[1]
    registers = connector.learnable_registers
    x = registers.repeat(CONTEXT_TOKENS // len(registers), 1).expand(len(tokens), -1, -1)
    x = torch.cat([torch.where(there[..., None], tokens, x[:, :count]), x[:, count:]], dim=1)
    connector.cos, connector.sin = connector.cos.to(x.device), connector.sin.to(x.device)
    rotary = (connector.cos, connector.sin)
    for block in connector.transformer_1d_blocks:
        assert isinstance(block, ConnectorBlock)
        h = normed(x)
        x = x + attention(block.attn1, h, h, rotary, rotary)
        x = x + feed_forward(block.ff, normed(x))
    return normed(x)


def unconditional(tokenizer: Tokenizer) -> Tensor:
    """Token ids [2, TOKENS] of what stands for no prompt: nothing, and the default negative one."""
    return token_ids(tokenizer, ["", DEFAULTS_2_3.negative_prompt])
