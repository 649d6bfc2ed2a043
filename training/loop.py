"""The loop that every component is trained with: bounded by time, seeded, resumable, logged.

On several GPUs it runs once for each, started by `torch.distributed.run`: every process draws its
own batches, and gradients are averaged.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .muon import Muon

# What is left of a run's time at its end for its last report.
CLOSING_SECONDS = 8.0

# So far apart are the seeds of processes that train together.
SEEDS_OF_A_RANK = 100_000_000

Losses = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Loop:
    """How a component is optimised.

    muon: for the weights of hidden layers, AdamW for the rest.
    warmup: steps over which the learning rate rises, at the start of every run: the optimizer's
        moments are kept only where there is room for them.
    decay: the part of a run's time, at its end, in which the learning rate falls to zero.
    reports: seconds from one report and checkpoint to the next.
    """

    learning_rate: float = 1e-3
    muon: bool = False
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup: int = 100
    decay: float = 0.35
    reports: float = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """One call of a command: how long, and where its checkpoint, its log and its pictures are.

    steps: at most as many in this run, for a test.
    seed: differs by rank.
    smoke: with the batches of a test, which a CPU computes in a second.
    rank, ranks: of the processes that train together; the first reports and writes.
    """

    folder: Path
    minutes: float
    steps: int | None
    device: torch.device
    seed: int
    smoke: bool
    rank: int = 0
    ranks: int = 1


def command(description: str) -> argparse.ArgumentParser:
    """The flags that every command has; `parse` reads them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--folder", type=Path, default=Path("train"), help="of checkpoints")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, in all")
    parser.add_argument("--steps", type=int, help="at most as many")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="tiny batches, for a test")
    return parser


def parse(options: argparse.Namespace) -> Run:
    """The run that is asked for; under `torch.distributed.run`, as one of its processes."""
    device = torch.device(options.device)
    rank, ranks = 0, int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        rank = int(os.environ["RANK"])
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    options.folder.mkdir(parents=True, exist_ok=True)
    seed = options.seed + rank * SEEDS_OF_A_RANK
    torch.manual_seed(seed)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return Run(
        folder=options.folder,
        minutes=options.minutes,
        steps=options.steps,
        device=device,
        seed=seed,
        smoke=options.smoke,
        rank=rank,
        ranks=ranks,
    )


def save_weights(path: Path, module: nn.Module, dtype: torch.dtype, step: int) -> None:
    """Write a module's parameters and buffers."""
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in module.state_dict().items()
    }
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary, {"step": str(step)})
    temporary.replace(path)


def load_weights(path: Path, module: nn.Module) -> int:
    """Read what `save_weights` wrote into a module; returns the step."""
    with safe_open(path, framework="pt") as file:
        module.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        return int(file.metadata()["step"])


def step_of(path: Path) -> int:
    """The step that a checkpoint is of; 0 if there is none."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["step"])


def train(
    name: str,
    module: nn.Module,
    loss: Callable[[int, float], Losses],
    report: Callable[[], Mapping[str, float]],
    loop: Loop,
    run: Run,
    hidden: Sequence[nn.Parameter] = (),
) -> int:
    """Train the parameters of a module that require gradients; returns the step reached.

    loss: the terms of a step's loss, already weighted; their sum is minimised. Steps are counted
        over all runs, so that a run that goes on sees other scenes; also given is the part of this
        run's time that is over. Both are the same on all ranks, and so must be which parameters
        get a gradient.
    report: figures for the log; it may draw pictures.
    hidden: the weights that Muon takes, where these are not all of more than two dimensions.
    """
    started = time.monotonic()
    checkpoint, moments = run.folder / f"{name}.safetensors", run.folder / f"{name}.optimizer.pt"
    parameters = [each for each in module.parameters() if each.requires_grad]
    optimizers = new_optimizers(parameters, loop, run, hidden)
    step = load_weights(checkpoint, module) if checkpoint.exists() else 0
    if moments.exists():
        saved = torch.load(moments, map_location=run.device, weights_only=True)
        if saved["step"] == step and saved["count"] == len(parameters):
            for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)

    def save() -> None:
        save_weights(checkpoint, module, torch.float16, step)
        states = [each.state_dict() for each in optimizers]
        torch.save({"step": step, "count": len(parameters), "optimizers": states}, moments)

    def close(sums: Mapping[str, Tensor], counted: int) -> None:
        """Report and save."""
        means = _means(sums, counted)
        if run.rank == 0:
            _log(run, name, step, started, means | dict(report()))
            save()
        if run.ranks > 1:
            share_weights(module)

    if run.ranks > 1:
        share_weights(module)
    first, reported = step, started
    seconds = 60 * run.minutes - (0 if run.smoke else CLOSING_SECONDS)
    begun = started
    sums: dict[str, Tensor] = {}
    counted = 0
    while run.steps is None or step - first < run.steps:
        elapsed, of, since = agreed(
            run,
            time.monotonic() - begun,
            started + seconds - begun,
            time.monotonic() - reported,
        )
        if elapsed > of:
            break
        if since > loop.reports:
            reported = time.monotonic()
            close(sums, counted)
            sums, counted = {}, 0
        done = elapsed / max(1.0, of)
        warm = min(1.0, (step - first + 1) / loop.warmup)
        falling = min(1.0, (1 - done) / loop.decay)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = loop.learning_rate * warm * max(0.0, falling)
        terms = loss(step, done)
        total = torch.stack(list(terms.values())).sum()
        for each in parameters:
            each.grad = None
        total.backward()
        if run.ranks > 1:
            average_gradients(parameters, run.ranks)
        norm = nn.utils.clip_grad_norm_(parameters, loop.clip)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        counted += 1
        for term, value in {**terms, "norm": norm}.items():
            sums[term] = sums.get(term, torch.zeros_like(value)) + value.detach()
        if step == first + 1:
            begun = time.monotonic()  # what was compiled is
    close(sums, counted)
    return step


def agreed(run: Run, *clock: float) -> tuple[float, ...]:
    """The first rank's numbers, on all ranks."""
    if run.ranks == 1:
        return clock
    shared = torch.tensor(clock, dtype=torch.float64)
    dist.broadcast(shared, 0)
    return tuple(shared.tolist())


def share_weights(module: nn.Module) -> None:
    """Make all ranks' parameters and buffers the first one's."""
    for tensor in module.state_dict().values():
        whole = tensor.contiguous()
        dist.broadcast(whole, 0)
        tensor.copy_(whole)


def average_gradients(parameters: list[nn.Parameter], ranks: int) -> None:
    """Over all ranks, in one exchange."""
    gradients = [each.grad for each in parameters if each.grad is not None]
    flat = torch.cat([each.flatten() for each in gradients])
    dist.all_reduce(flat)
    parts = flat.div_(ranks).split([each.numel() for each in gradients])
    torch._foreach_copy_(
        gradients, [part.view(each.shape) for part, each in zip(parts, gradients, strict=True)]
    )


def _means(sums: Mapping[str, Tensor], counted: int) -> dict[str, float]:
    means = {term: float(value) / max(1, counted) for term, value in sums.items()}
    if not all(map(math.isfinite, means.values())):
        raise FloatingPointError(f"training broke down; the last checkpoint is good: {means}")
    return means


def new_optimizers(
    parameters: list[nn.Parameter], loop: Loop, run: Run, hidden: Sequence[nn.Parameter]
) -> list[torch.optim.Optimizer]:
    """Muon for the weights that are to have it, AdamW for the rest."""
    weights = []
    if loop.muon:
        weights = list(hidden) or [each for each in parameters if each.dim() > 2]
    known = set(map(id, weights))
    adam = torch.optim.AdamW(
        [each for each in parameters if id(each) not in known],
        lr=loop.learning_rate,
        betas=loop.betas,
        weight_decay=loop.weight_decay,
        fused=run.device.type == "cuda",
    )
    if not weights:
        return [adam]
    return [adam, Muon(weights, loop.learning_rate, weight_decay=loop.weight_decay)]


def _log(run: Run, name: str, step: int, started: float, values: Mapping[str, float]) -> None:
    line = {"step": step, "seconds": round(time.monotonic() - started, 1)} | {
        key: float(f"{value:.4g}") for key, value in values.items()
    }
    print(name, json.dumps(line), flush=True)
    with (run.folder / f"{name}.log").open("a") as file:
        file.write(json.dumps(line) + "\n")
