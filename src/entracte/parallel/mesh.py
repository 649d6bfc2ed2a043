"""How the transformer's work is shared out over several devices."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from entracte.models.transformer import (
    ONE_DEVICE,
    Exchange,
    Pass,
    RunBlocks,
    StreamInput,
    Transformer,
    Velocity,
)

from .layout import Layout
from .ranks import Connect, Ranks
from .row_exchange import RowExchange, slots_of
from .row_memory import RowMemory
from .sequence import SequenceExchange, part_of, shares

logger = logging.getLogger(__name__)

# Shapes whose exchange keeps memory: as many as a request has phases.
SHAPES = 2


@dataclass(frozen=True, slots=True)
class Mesh:
    """Ranks that make a video together, in the rows of any layout.

    everyone: all ranks, as this one of them sees them. rows: by its length, the row of this rank,
    for lengths between 1 and all. exchanges: those of the last shapes, with their memory.
    """

    everyone: Ranks
    rows: Mapping[int, Ranks]
    exchanges: dict[Hashable, Exchange] = field(default_factory=dict)

    @classmethod
    def open(cls, everyone: Ranks, connect: Connect) -> "Mesh":
        """Connect the rows of all layouts; every rank has to call it."""
        rows = {}
        for row in range(2, everyone.size):
            if everyone.size % row == 0:
                number, place = divmod(everyone.rank, row)
                rows[row] = Ranks(connect(f"row {number} of {row}", place, row))
        return cls(everyone, rows)

    def break_off(self) -> None:
        """Have no rank waited for any more, from any thread; what is computed is not to be used."""
        for each in list(self.exchanges.values()):
            if isinstance(each, RowExchange):
                each.break_off()

    def row(self, layout: Layout) -> Ranks:
        """The ranks that share the video's tokens with this one; `layout.row` is above 1."""
        return self.everyone if layout.row == self.everyone.size else self.rows[layout.row]


class SpreadTransformer:
    """A transformer over a mesh: takes and returns, on every device, what the transformer does.

    Where a row has more devices than the video has tokens, each evaluates all of them; where there
    are more rows than passes, rows make the same passes. Raises ValueError where the layout is not
    one of the mesh, or the devices of a row cannot share out the attention heads.
    """

    def __init__(self, transformer: Transformer, mesh: Mesh, layout: Layout) -> None:
        if layout.ranks != mesh.everyone.size:
            raise ValueError(f"{mesh.everyone.size} devices cannot be {layout}")
        for stream in (transformer.config.video, transformer.config.audio):
            if stream.heads % layout.row:
                raise ValueError(
                    f"{layout.row} devices cannot share out {stream.heads} attention heads"
                )
        self._transformer = transformer
        self._mesh = mesh
        self._layout = layout

    def __call__(
        self,
        video: StreamInput,
        audio: StreamInput,
        passes: Sequence[Pass],
        rows_at_once: int,
        run: RunBlocks,
    ) -> list[Velocity]:
        """Evaluate every pass; returns their velocities in the order of `passes`."""
        everyone, layout, tokens = self._mesh.everyone, self._layout, video.latent.shape[1]
        if tokens < layout.row:
            alone: list[Velocity] = self._transformer(video, audio, passes, rows_at_once, run)
            return alone
        number, place = divmod(everyone.rank, layout.row)
        rows = share_passes(passes, layout.rows, self._transformer.config.layers)
        counts = shares(tokens, layout.row)
        exchange: Exchange = ONE_DEVICE
        if layout.row > 1:
            most = min(rows_at_once, max(map(len, rows)))
            exchange = self._exchange(counts, most, video, audio)
        contexts, mine = attended_contexts(rows[number])
        made: list[Velocity] = self._transformer(
            with_contexts(part_of(video, place, counts), contexts),
            with_contexts(audio, contexts),
            passes=mine,
            rows_at_once=rows_at_once,
            run=run,
            exchange=exchange,
        )
        if layout.rows == 1:
            return made
        own = slice(sum(counts[:place]), sum(counts[: place + 1]))
        channels = made[0].video.shape[2]
        found = everyone.gather(
            torch.cat([each.video[:, own] for each in made]),
            [[len(row), count, channels] for row in rows for count in counts],
        )
        # Every device of a row has all of its audio; that of the first is taken.
        sounds = everyone.gather(
            torch.cat([each.audio for each in made]),
            [[len(row), *made[0].audio.shape[1:]] for row in rows for _ in counts],
        )
        velocities: dict[Pass, Velocity] = {}
        for number, row in enumerate(rows):
            first = number * len(counts)
            videos = torch.cat(found[first : first + len(counts)], dim=1)
            for at, each in enumerate(row):
                velocities[each] = Velocity(videos[at : at + 1], sounds[first][at : at + 1])
        return [velocities[each] for each in passes]

    def _exchange(
        self, counts: list[int], rows: int, video: StreamInput, audio: StreamInput
    ) -> Exchange:
        """rows: in a batch at most."""
        ranks, latent = self._mesh.row(self._layout), video.latent
        if latent.is_meta or not latent.is_cuda:
            # What is only counted, on the meta device, is counted as on a GPU.
            return SequenceExchange(ranks, counts, captured=latent.is_meta)
        contexts, texts, _ = video.contexts.shape
        key = ranks, tuple(counts), rows, audio.latent.shape[1], contexts, texts, latent.dtype
        found = self._mesh.exchanges.pop(key, None)
        if found is None:
            while len(self._mesh.exchanges) >= SHAPES:
                del self._mesh.exchanges[next(iter(self._mesh.exchanges))]
            slots, nbytes = slots_of(
                self._transformer.config,
                ranks.size,
                rows,
                sum(counts),
                audio.latent.shape[1],
                (contexts, texts),
                latent.dtype.itemsize,
            )
            try:
                found = RowExchange(RowMemory(ranks, nbytes, latent.device), counts, slots)
            except RuntimeError as error:
                logger.warning("Steps will take longer than they could: %s", error)
                found = SequenceExchange(ranks, counts)
        self._mesh.exchanges[key] = found  # the last one used is last
        return found


def attended_contexts(passes: Sequence[Pass]) -> tuple[slice, list[Pass]]:
    """Which text contexts passes attend to, and the same passes where only these are given."""
    numbers = [each.context for each in passes]
    first = min(numbers)
    moved = [replace(each, context=each.context - first) for each in passes]
    return slice(first, max(numbers) + 1), moved


def with_contexts(stream: StreamInput, contexts: slice) -> StreamInput:
    return replace(stream, contexts=stream.contexts[contexts])


def row_cost(row: Sequence[Pass], layers: int) -> float:
    """What a row of devices computes for some passes, in blocks of one pass.

    A pass that skips costs what follows its first skip where its twin is in the same row.
    """
    return sum(
        layers - each.first_skip if each.first_skip is not None and each.twin(row) else layers
        for each in row
    )


def share_passes(passes: Sequence[Pass], rows: int, layers: int) -> list[list[Pass]]:
    """Passes to rows of devices, so that the dearest row costs least.

    Where there are more rows than passes, they are shared out more than once.
    """

    def dearest(found: list[list[Pass]]) -> tuple[float, float]:
        costs = [row_cost(row, layers) for row in found]
        return max(costs), sum(costs)

    found = min(_partitions(list(passes), min(rows, len(passes))), key=dearest)
    return [found[row % len(found)] for row in range(rows)]


def _partitions(items: list[Pass], parts: int) -> list[list[list[Pass]]]:
    """All ways to put items into so many parts that are not empty, in a fixed order."""
    if not items or not parts:
        return [] if items or parts else [[]]
    *rest, last = items
    apart = [[*earlier, [last]] for earlier in _partitions(rest, parts - 1)]
    return apart + [
        [[*part, last] if i == at else part for i, part in enumerate(earlier)]
        for earlier in _partitions(rest, parts)
        for at in range(parts)
    ]
