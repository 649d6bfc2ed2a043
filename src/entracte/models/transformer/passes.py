"""Guidance passes: the evaluations of the model that one denoising step combines.

Passes go through the blocks together, block by block, so that a block's weights are needed once a
step however many passes there are. A pass that skips self-attention in block f computes exactly
what its plain twin computes before f, so it joins there, as a copy of the twin's state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pass:
    """One evaluation of the model.

    context: which of the given text contexts it attends to.
    skip_video, skip_audio: blocks whose self-attention is replaced by its value projection.
    isolated: no audio-to-video and video-to-audio attention in any block.
    """

    context: int = 0
    skip_video: frozenset[int] = frozenset()
    skip_audio: frozenset[int] = frozenset()
    isolated: bool = False

    @property
    def first_skip(self) -> int | None:
        """The first block that this pass computes differently from one that skips nothing."""
        return min(self.skip_video | self.skip_audio, default=None)

    def twin(self, passes: Sequence["Pass"]) -> "Pass | None":
        """The pass among `passes` that is the same but skips nothing."""
        plain = Pass(context=self.context, isolated=self.isolated)
        return plain if plain in passes else None


@dataclass(slots=True)
class Rows:
    """Passes that go through a block as one batch, and their hidden states, a row each.

    video: [rows, video tokens, video width]; audio: [rows, audio tokens, audio width].
    Isolated passes come first and skipping ones last, so that each kind is a slice of rows.
    """

    passes: list[Pass]
    video: Tensor
    audio: Tensor

    @property
    def isolated(self) -> int:
        """How many leading rows have no attention between video and audio."""
        return sum(p.isolated for p in self.passes)

    def attending(self, block: int) -> tuple[int, int]:
        """How many leading rows have video and audio self-attention in a block."""
        return (
            sum(block not in p.skip_video for p in self.passes),
            sum(block not in p.skip_audio for p in self.passes),
        )

    def pick(self, per_context: Tensor) -> Tensor:
        """For every row, its context's entry of a tensor [contexts, …]; a view where it can be."""
        wanted = [p.context for p in self.passes]
        if len(set(wanted)) == 1:
            return per_context[wanted[0]].expand(len(wanted), *per_context.shape[1:])
        # Not an index by a list, which a GPU would have to be sent, and waited for.
        return torch.stack([per_context[context] for context in wanted])


def start_rows(
    passes: Sequence[Pass], video: Tensor, audio: Tensor, rows_at_once: int
) -> list[Rows]:
    """Group the passes that run from the first block on into batches of at most `rows_at_once`.

    video, audio: the embedded latents, [1, tokens, width], common to all passes.
    Raises ValueError where the passes cannot be ordered as `Rows` needs.
    """
    if len(set(passes)) != len(passes):
        raise ValueError("a pass is given twice")
    if sum(p.first_skip is not None for p in passes) > 1:
        raise ValueError("at most one pass may skip self-attention")
    if any(p.isolated and p.first_skip is not None for p in passes):
        raise ValueError("a pass may skip self-attention or be isolated, not both")
    starting = [p for p in passes if not p.first_skip or p.twin(passes) is None]
    starting.sort(key=lambda p: (not p.isolated, p.first_skip is not None))
    groups = []
    for first in range(0, len(starting), rows_at_once):
        members = starting[first : first + rows_at_once]
        groups.append(
            Rows(members, video.repeat(len(members), 1, 1), audio.repeat(len(members), 1, 1))
        )
    return groups


def join_rows(
    groups: list[Rows], passes: Sequence[Pass], block: int, rows_at_once: int
) -> list[Rows]:
    """The groups with the pass, if any, that leaves its twin at this block added to them."""
    if block == 0:
        return groups
    for newcomer in passes:
        twin = newcomer.twin(passes)
        if newcomer.first_skip != block or twin is None:
            continue
        origin = next(rows for rows in groups if twin in rows.passes)
        row = origin.passes.index(twin)
        video, audio = origin.video[row : row + 1], origin.audio[row : row + 1]
        *others, last = groups
        if len(last.passes) < rows_at_once:
            joined = Rows(
                [*last.passes, newcomer],
                torch.cat([last.video, video]),
                torch.cat([last.audio, audio]),
            )
            return [*others, joined]
        return [*groups, Rows([newcomer], video.clone(), audio.clone())]
    return groups
