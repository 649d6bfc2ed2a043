"""Passes computed together, one by one or joined to a twin give the same velocities."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch

from entracte.models.transformer import Pass, StreamInput, TokenRun, Transformer, TransformerConfig
from entracte.models.transformer.block import Block
from entracte.models.transformer.execution import Sweep, run_blocks
from entracte.models.transformer.modulation import runs_of
from entracte.models.transformer.passes import Batch, Rows
from entracte.synthetic import demo_config

VIDEO, AUDIO = 12, 7
BLOCK = frozenset([2])
SKIPPED = Pass(skip_video=BLOCK, skip_audio=BLOCK)
PASSES = [Pass(), Pass(context=1), SKIPPED, Pass(isolated=True)]


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig.from_header(demo_config.TRANSFORMER))
    for parameter in model.parameters():
        parameter.requires_grad_(False).normal_(0, 0.1)
    return model.eval()


def inputs(model: Transformer, mask: list[float] | None = None) -> tuple[StreamInput, StreamInput]:
    torch.manual_seed(1)
    rotary = model.rotary(
        torch.rand(3, VIDEO) * 100, torch.rand(1, AUDIO), torch.device("cpu"), torch.float32
    )
    sigma = torch.tensor([0.7])
    distinct, runs = runs_of(mask or [1.0] * VIDEO)
    video = StreamInput(
        torch.randn(1, VIDEO, 128),
        torch.tensor(distinct) * sigma,
        runs,
        sigma,
        torch.randn(2, 1024, 128),
        rotary[0],
    )
    audio = StreamInput(
        torch.randn(1, AUDIO, 128),
        sigma,
        [TokenRun(0, AUDIO, 0)],
        sigma,
        torch.randn(2, 1024, 64),
        rotary[1],
    )
    return video, audio


@pytest.mark.parametrize("rows_at_once", [1, 2, 3, 4])
def test_batching_changes_nothing(model: Transformer, rows_at_once: int) -> None:
    video, audio = inputs(model)
    alone = [model(video, audio, [each])[0] for each in PASSES]
    together = model(video, audio, PASSES, rows_at_once=rows_at_once)
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one.video, other.video, atol=1e-4)
        assert torch.allclose(one.audio, other.audio, atol=1e-4)


def test_passes_differ(model: Transformer) -> None:
    video, audio = inputs(model)
    velocities = model(video, audio, PASSES)
    for i, one in enumerate(velocities):
        for other in velocities[i + 1 :]:
            assert not torch.allclose(one.video, other.video, atol=1e-3)
            assert not torch.allclose(one.audio, other.audio, atol=1e-3)


@pytest.mark.parametrize("rows_at_once", [1, 3])
def test_a_skipping_pass_shares_its_twins_blocks(model: Transformer, rows_at_once: int) -> None:
    """Before its first skipped block it costs nothing: two rows run there, three after."""
    rows_seen = [0] * len(model.transformer_blocks)

    def count(index: int, states: torch.Tensor) -> None:
        rows_seen[index] += len(states)

    hooks = [
        block.register_forward_pre_hook(lambda _, args, index=index: count(index, args[0]))
        for index, block in enumerate(model.transformer_blocks)
    ]
    model(*inputs(model), [Pass(), Pass(context=1), SKIPPED], rows_at_once=rows_at_once)
    for hook in hooks:
        hook.remove()
    assert rows_seen == [2, 2, 3, 3]


def test_blocks_are_asked_for_one_at_a_time(model: Transformer) -> None:
    """A streaming manager may reuse a block's memory once the next one is asked for."""
    video, audio = inputs(model)
    expected = model(video, audio, PASSES)

    def lent_one_at_a_time(blocks: Iterable[Block], *rest: Any) -> list[Batch]:
        def lend() -> Iterator[Block]:
            for block in blocks:
                lent = copy.deepcopy(block)
                yield lent
                for parameter in lent.parameters():
                    parameter.fill_(torch.nan)

        return run_blocks(lend(), *rest)

    streamed = model(video, audio, PASSES, rows_at_once=1, run=lent_one_at_a_time)
    assert torch.allclose(streamed[2].video, expected[2].video, atol=1e-4)


def tensors_of(*values: Any) -> list[torch.Tensor]:
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif is_dataclass(value):
            found += tensors_of(*(getattr(value, field.name) for field in fields(value)))
    return found


def test_a_block_changes_nothing_but_the_states_it_returns(model: Transformer) -> None:
    """So that a captured or compiled one may stand in its place."""
    seen: list[tuple[Any, ...]] = []
    block = model.transformer_blocks[2]
    hook = block.register_forward_pre_hook(lambda _, args: seen.append(copy.deepcopy(args)))
    model(*inputs(model, [0.0] * 4 + [1.0] * 8), PASSES)
    hook.remove()
    (given,) = seen
    x, y, *rest = given
    assert rest[3] == Rows((0, 0, 1, 0), isolated=1, video_attending=3, audio_attending=3)
    before, weights = copy.deepcopy(given), [p.clone() for p in block.parameters()]

    first = block(x, y, *rest)
    assert first[0] is x
    assert first[1] is y
    assert all(map(torch.equal, tensors_of(*rest), tensors_of(*before[2:])))
    assert all(map(torch.equal, block.parameters(), weights))
    again = block(*before)
    assert all(map(torch.equal, first, again))


def test_another_loop_may_stand_in_the_place_of_the_plain_one(model: Transformer) -> None:
    """Such as one that returns states in memory of its own."""
    video, audio = inputs(model)

    def one_batch_after_the_other(
        blocks: Iterable[Block], batches: list[Batch], sweep: Sweep
    ) -> list[Batch]:
        video, audio = sweep.video, sweep.audio
        for index, block in enumerate(blocks):
            batches = sweep.join(batches, index)
            shared = block.prepare(video, audio)
            for number, batch in enumerate(batches):
                x, y = batch.video.clone(), batch.audio.clone()
                states = block(x, y, video, audio, shared, batch.rows(index))
                batches[number] = Batch(batch.passes, *states)
        return batches

    plain = model(video, audio, PASSES, rows_at_once=2)
    other = model(video, audio, PASSES, rows_at_once=2, run=one_batch_after_the_other)
    for one, two in zip(plain, other, strict=True):
        assert torch.equal(one.video, two.video)
        assert torch.equal(one.audio, two.audio)


def test_runs_equal_a_timestep_for_every_token(model: Transformer) -> None:
    """Two distinct timesteps as runs give what each token alone in its run gives."""
    mask = [0.0] * 4 + [1.0] * 8
    video, audio = inputs(model, mask)
    single = StreamInput(
        video.latent,
        torch.tensor(mask) * video.sigma,
        [TokenRun(i, i + 1, i) for i in range(VIDEO)],
        video.sigma,
        video.contexts,
        video.rotary,
    )
    by_run = model(video, audio, PASSES)
    by_token = model(single, audio, PASSES)
    for one, other in zip(by_run, by_token, strict=True):
        assert torch.allclose(one.video, other.video, atol=1e-4)


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ([Pass(), Pass()], "twice"),
        ([SKIPPED, Pass(skip_video=frozenset([1]))], "at most one"),
        ([Pass(skip_video=BLOCK, isolated=True)], "not both"),
    ],
)
def test_passes_that_cannot_be_ordered(
    model: Transformer, passes: list[Pass], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model(*inputs(model), passes)


def test_runs_of() -> None:
    distinct, runs = runs_of([0.5, 0.5, 1.0, 0.5])
    assert distinct == [0.5, 1.0]
    assert runs == [TokenRun(0, 2, 0), TokenRun(2, 3, 1), TokenRun(3, 4, 0)]
