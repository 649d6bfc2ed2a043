"""Guidance passes: the evaluations of the model that one denoising step combines.

Passes go through the blocks together, block by block, so that a block's weights are needed once a
sweep however many passes there are. A pass that skips self-attention in block f computes exactly
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


@dataclass(frozen=True, slots=True)
class Rows:
    """What a block does with each row of a batch; hashable, and without tensors.

    contexts: the text context that each row attends to.
    isolated: how many leading rows have no attention between video and audio.
    video_attending, audio_attending: how many leading rows have self-attention; the others keep
        their values.
    """

    contexts: tuple[int, ...]
    isolated: int
    video_attending: int
    audio_attending: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Passes that go through the blocks together, a row each, and their hidden states.

    video: [rows, video tokens, video width]; audio: [rows, audio tokens, audio width].
    Isolated passes come first and skipping ones last, so that each kind is a slice of rows.
    """

    passes: tuple[Pass, ...]
    video: Tensor
    audio: Tensor

    def rows(self, block: int) -> Rows:
        """What the block at a place does with each row."""
        return Rows(
            contexts=tuple(p.context for p in self.passes),
            isolated=sum(p.isolated for p in self.passes),
            video_attending=sum(block not in p.skip_video for p in self.passes),
            audio_attending=sum(block not in p.skip_audio for p in self.passes),
        )


def first_batches(
    passes: Sequence[Pass], video: Tensor, audio: Tensor, rows_at_once: int
) -> list[Batch]:
    """Batches, of at most `rows_at_once`, of the passes that run from the first block on.

    video, audio: the embedded latents, [1, tokens, width], common to all passes.
    Raises ValueError where the passes cannot be ordered as `Batch` needs.
    """
    if len(set(passes)) != len(passes):
        raise ValueError("a pass is given twice")
    if sum(p.first_skip is not None for p in passes) > 1:
        raise ValueError("at most one pass may skip self-attention")
    if any(p.isolated and p.first_skip is not None for p in passes):
        raise ValueError("a pass may skip self-attention or be isolated, not both")
    starting = [p for p in passes if not p.first_skip or p.twin(passes) is None]
    starting.sort(key=lambda p: (not p.isolated, p.first_skip is not None))
    batches = []
    for first in range(0, len(starting), rows_at_once):
        members = tuple(starting[first : first + rows_at_once])
        count = len(members)
        batches.append(Batch(members, video.repeat(count, 1, 1), audio.repeat(count, 1, 1)))
    return batches


def join(
    batches: list[Batch], passes: Sequence[Pass], block: int, rows_at_once: int
) -> list[Batch]:
    """The batches, with the pass that leaves its twin at this block added, if there is one."""
    if block == 0:
        return batches
    for newcomer in passes:
        twin = newcomer.twin(passes)
        if newcomer.first_skip != block or twin is None:
            continue
        origin = next(batch for batch in batches if twin in batch.passes)
        row = origin.passes.index(twin)
        video, audio = origin.video[row : row + 1], origin.audio[row : row + 1]
        *others, last = batches
        if len(last.passes) < rows_at_once:
            joined = Batch(
                (*last.passes, newcomer),
                torch.cat([last.video, video]),
                torch.cat([last.audio, audio]),
            )
            return [*others, joined]
        return [*batches, Batch((newcomer,), video.clone(), audio.clone())]
    return batches
