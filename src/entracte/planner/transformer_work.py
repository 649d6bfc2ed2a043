"""What the loops over the transformer take: a sampler and a denoiser run on meta tensors."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from entracte.models.connectors import CONTEXT_TOKENS, TextContext
from entracte.models.kernels.graphs import captured, held_bytes
from entracte.models.transformer import (
    Evaluate,
    StreamRotary,
    Sweep,
    Transformer,
    TransformerConfig,
)
from entracte.models.transformer.block import Block
from entracte.models.transformer.config import StreamConfig
from entracte.models.transformer.passes import Batch, Rows
from entracte.models.transformer.rotary import Rotary
from entracte.parallel import ONE_RANK, Layout, SpreadTransformer, row_cost, share_passes, slots_of
from entracte.pipeline.cache import Cache
from entracte.sampling.denoiser import Denoiser
from entracte.sampling.samplers import SAMPLERS
from entracte.sampling.tokens import (
    StreamLatents,
    Tokens,
    append_tokens,
    plain_tokens,
    replace_first_frame,
    video_tokens,
)

from .counted_group import counted_mesh
from .meta_ops import META
from .meter import Counts, Metered, counting
from .model_profile import ModelFigures
from .workload import PhaseLoad

# Loops that are kept, for requests with a phase of the same shape.
CACHED_LOOPS = 64

# What stands for a model's dtype: only its size counts.
DTYPES = {2: torch.bfloat16, 4: torch.float32}

# The second step of a sampler also holds what the first one made.
STEPS = 2


@dataclass(frozen=True, slots=True)
class LoopWork:
    """What the loop of one phase takes.

    flops, block_calls: of all its evaluations, on the device with the most of them. A block is
        called once for every batch of passes.
    nbytes: the most in use at once, beside weights, the contexts that it is given and its rotary
        tables.
    exchanges, exchanged: how often devices exchange tensors, and the bytes that each sends.
    share: of the video's tokens in all passes, those that this device has.
    in_float8: of the flops, those of products in float8.
    held, pooled: for captured graphs, what is held for its shape, and what a block makes at once
        of their pool; both 0 where none are captured, whatever devices exchange.
    """

    flops: float
    block_calls: int
    nbytes: int
    held: int = 0
    pooled: int = 0
    exchanges: int = 0
    exchanged: int = 0
    share: float = 1.0
    in_float8: float = 0.0


class TransformerMeter:
    """Meters the loops of one transformer, each shape and layout once.

    A single block stands in for all of them, since they are alike. float8: see `ModelFigures`.
    """

    # In inference mode torch does not take operations apart, and they would not be counted.
    @torch.inference_mode(False)
    def __init__(self, config: TransformerConfig, dtype: torch.dtype, float8: float = 0.0) -> None:
        self.config = config
        self._float8 = float8
        self._dtype = dtype
        self._found: Cache[tuple[PhaseLoad, Layout], LoopWork] = Cache(CACHED_LOOPS)
        with META:
            transformer = Transformer(replace(config, layers=1)).requires_grad_(False)
        transformer.config = config  # by its layers passes are shared out
        self._transformer = transformer.to(dtype)

    @classmethod
    def of(cls, model: ModelFigures) -> "TransformerMeter":
        return cls(model.transformer, DTYPES[model.itemsize], model.float8)

    @property
    def context_bytes(self) -> int:
        """Of one prompt's context, for both streams."""
        context = self._context()
        return context.video.nbytes + context.audio.nbytes

    def rotary_bytes(self, phase: PhaseLoad) -> int:
        """Of a phase's rotary tables."""
        tables = [each for s in self._rotary(phase) for each in (s.own, s.cross)]
        return sum(table.cos.nbytes + table.sin.nbytes for table in tables)

    def row_bytes(self, phase: PhaseLoad, layout: Layout) -> int:
        """Of the memory that ranks which share tokens write into, on each of them."""
        if layout.row == 1 or phase.video_tokens < layout.row:
            return 0
        passes = list(phase.guidance.passes().values())
        rows = share_passes(passes, layout.rows, self.config.layers)
        _, nbytes = slots_of(
            self.config,
            layout.row,
            min(phase.rows_at_once, max(map(len, rows))),
            phase.video_tokens,
            phase.audio_tokens,
            (phase.contexts, CONTEXT_TOKENS),
            self._dtype.itemsize,
        )
        return nbytes

    def loop(self, phase: PhaseLoad, layout: Layout = ONE_RANK) -> LoopWork:
        """What the loop of a phase takes of a device, where it is shared out in a layout."""
        sampler = SAMPLERS[phase.sampler]
        steps = min(phase.steps, STEPS)
        # The number of steps makes no difference to what one evaluation takes.
        few = replace(phase, name="", steps=steps, evaluations=sampler.evaluations(steps))
        found = self._found.get((few, layout), lambda: self._dearest(few, layout))
        share = phase.evaluations / few.evaluations
        return replace(
            found,
            flops=share * found.flops,
            in_float8=share * found.in_float8,
            block_calls=round(share * found.block_calls),
            exchanges=round(share * found.exchanges),
            exchanged=round(share * found.exchanged),
        )

    def _dearest(self, phase: PhaseLoad, layout: Layout) -> LoopWork:
        """The loop on the device that has most to do: in its row, the first one has.

        Only rows are metered that can be the dearest or take most memory.
        """
        layers = self.config.layers
        passes = list(phase.guidance.passes().values())
        rows = share_passes(passes, layout.rows, layers)

        def cost(number: int) -> tuple[float, int]:
            row = rows[number]
            left_out = sum(each.first_skip is not None or each.isolated for each in row)
            return row_cost(row, layers), -left_out

        dearest = max(range(layout.rows), key=cost)
        largest = max(range(layout.rows), key=lambda number: (len(rows[number]), *cost(number)))
        works = [
            self._metered(phase, layout, number * layout.row)
            for number in sorted({dearest, largest})
        ]
        dear = max(works, key=lambda work: (work.flops, work.block_calls))
        share = row_cost(rows[dearest], layers) / row_cost(passes, layers) / layout.row
        return replace(dear, nbytes=max(work.nbytes for work in works), share=share)

    @torch.inference_mode(False)
    def _metered(self, phase: PhaseLoad, layout: Layout, rank: int) -> LoopWork:
        contexts = [self._context() for _ in range(phase.contexts)]
        rotary, image = self._rotary(phase), self._image(phase)
        with counting() as counts:
            blocks = _CountedBlocks(counts, self.config.layers)
            video, audio = self._video(phase, image), self._audio(phase)
            evaluate: Evaluate = self._transformer
            if layout != ONE_RANK:
                mesh = counted_mesh(layout.ranks, rank, counts)
                evaluate = SpreadTransformer(self._transformer, mesh, layout)
            denoiser = Denoiser(
                evaluate,
                video,
                audio,
                contexts,
                rotary,
                phase.guidance,
                phase.rows_at_once,
                blocks.run,
            )
            start = StreamLatents(video.latent, audio.latent)
            levels = torch.linspace(1, 0, phase.steps + 1)
            SAMPLERS[phase.sampler].loop(denoiser, start, levels, 0, lambda *_: None)
        return LoopWork(
            counts.flops,
            blocks.calls,
            counts.peak,
            blocks.held,
            blocks.pooled,
            counts.exchanges,
            counts.exchanged,
            in_float8=self._float8 * counts.of_linears,
        )

    def _context(self) -> TextContext:
        video, audio = self.config.context_widths
        return TextContext(
            self._empty(1, CONTEXT_TOKENS, video), self._empty(1, CONTEXT_TOKENS, audio)
        )

    def _rotary(self, phase: PhaseLoad) -> tuple[StreamRotary, StreamRotary]:
        video, audio = self.config.video, self.config.audio

        def table(tokens: int, of: StreamConfig) -> Rotary:
            shape = tokens, of.heads, of.head_dim // 2
            return Rotary(self._empty(*shape), self._empty(*shape))

        n, m = phase.video_tokens, phase.audio_tokens
        # Audio-video attention has the audio stream's heads.
        return (
            StreamRotary(table(n, video), table(n, audio)),
            StreamRotary(table(m, audio), table(m, audio)),
        )

    def _image(self, phase: PhaseLoad) -> Tensor:
        return self._empty(1, phase.height * phase.width, self.config.video.in_channels)

    def _video(self, phase: PhaseLoad, image: Tensor) -> Tokens:
        """The tokens that a phase starts from, conditioned on images; strided, as a run's are."""
        channels, own = self.config.video.in_channels, phase.frames * phase.height * phase.width
        grid = self._empty(1, channels, phase.frames, phase.height, phase.width)
        found = plain_tokens(video_tokens(grid), torch.zeros(3, own, 2))
        appended = phase.appended // image.shape[1]
        if phase.images > appended:
            found = replace_first_frame(found, image, 1.0)
        for _ in range(appended):
            found = append_tokens(found, image, 1.0, torch.zeros(3, image.shape[1], 2))
        for each in phase.references:
            shown = self._empty(1, each.grid.tokens, channels)
            weights = torch.ones(shown.shape[1], device=META) if each.weighed else None
            found = append_tokens(found, shown, 1.0, torch.zeros(3, shown.shape[1], 2), weights)
        return found

    def _audio(self, phase: PhaseLoad) -> Tokens:
        latent = self._empty(1, phase.audio_tokens, self.config.audio.in_channels)
        return plain_tokens(latent, torch.zeros(1, phase.audio_tokens, 2))

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self._dtype, device=META)


class _CountedBlocks:
    """Stands in for the loop over the blocks: what was computed once is then only counted."""

    def __init__(self, counts: Counts, layers: int) -> None:
        self.calls = 0
        self.held = 0
        self.pooled = 0
        self._counts = counts
        self._layers = layers
        self._known: dict[Hashable, Metered] = {}

    def run(self, blocks: Iterable[Block], batches: list[Batch], sweep: Sweep) -> list[Batch]:
        (block,) = blocks
        video, audio = sweep.video, sweep.audio
        rows, tokens, _ = batches[0].video.shape
        if captured(rows, tokens):
            self.held = held_bytes(batches[0], sweep)

        def all_batches(index: int) -> None:
            shared = block.prepare(video, audio, exchange=sweep.exchange)
            for batch in batches:
                rows = batch.rows(index)
                call = partial(
                    block,
                    batch.video,
                    batch.audio,
                    video,
                    audio,
                    shared,
                    rows,
                    exchange=sweep.exchange,
                )
                self._once(_kind(rows), call)

        for index in range(self._layers):
            batches = sweep.join(batches, index)
            self.calls += len(batches)
            kind = tuple(batch.rows(index) for batch in batches)
            took = self._once(kind, partial(all_batches, index))
            if self.held:
                self.pooled = max(self.pooled, took.nbytes)
        return batches

    def _once(self, kind: Hashable, compute: Callable[[], object]) -> Metered:
        """Compute, or count what the first of this kind took. It leaves nothing in memory."""
        counts = self._counts
        known = self._known.get(kind)
        if known is None:
            peak, before, flops = counts.peak, counts.now, counts.flops
            of_linears = counts.of_linears
            exchanges, exchanged = counts.exchanges, counts.exchanged
            counts.peak = before
            compute()
            known = self._known[kind] = Metered(
                counts.flops - flops,
                counts.peak - before,
                counts.exchanges - exchanges,
                counts.exchanged - exchanged,
                counts.of_linears - of_linears,
            )
            counts.peak = max(peak, counts.peak)
        else:
            counts.flops += known.flops
            counts.of_linears += known.of_linears
            counts.exchanges += known.exchanges
            counts.exchanged += known.exchanged
            counts.peak = max(counts.peak, counts.now + known.nbytes)
        return known


def _kind(rows: Rows) -> Rows:
    """The same for rows that take the same: which contexts they attend to makes no difference."""
    return replace(rows, contexts=tuple(map(rows.contexts.index, rows.contexts)))
