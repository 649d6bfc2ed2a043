"""Compares two runs of a benchmark: what got slower, larger, or has other bits."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from entracte.errors import RequestError

TOLERANCE = 0.03

# A stage that changed by less than this share of end to end has not changed.
NEGLIGIBLE = 0.002

Judgement = Literal["worse", "better", "same"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A measured quantity of two runs: medians, in seconds or bytes.

    spread: the largest less the smallest of a run's repeats, of the run where it is more.
    """

    task: str
    mode: str
    what: str
    unit: Literal["s", "bytes"]
    before: float
    now: float
    spread: float
    verdict: Judgement

    @property
    def ratio(self) -> float:
        return self.now / self.before if self.before else 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs compared. broken: what is worse and no quantity. notes: what explains a change."""

    changes: Sequence[Difference]
    broken: Sequence[str]
    notes: Sequence[str]

    @property
    def worse(self) -> bool:
        return bool(self.broken) or any(each.verdict == "worse" for each in self.changes)

    def json(self) -> dict[str, Any]:
        return {
            "worse": self.worse,
            "changes": [asdict(each) for each in self.changes],
            "broken": list(self.broken),
            "notes": list(self.notes),
        }

    def table(self) -> list[list[str]]:
        """What changed, and every mode's end to end and memory. The first row has the heads."""
        rows = [["task", "mode", "what", "before", "now", "change", "spread", ""]]
        for each in self.changes:
            if each.verdict == "same" and each.what not in ("end to end", "peak memory"):
                continue
            numbers = [_number(value, each.unit) for value in (each.before, each.now)]
            spread = f"{each.spread / each.before:.1%}" if each.before else ""
            verdict = "" if each.verdict == "same" else each.verdict
            change = f"{each.ratio - 1:+.1%}"
            rows.append([each.task, each.mode, each.what, *numbers, change, spread, verdict])
        return rows


def read(path: Path) -> dict[str, Any]:
    """The JSON of a run; raises RequestError for anything else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict) or "tasks" not in found or "machine" not in found:
        raise RequestError(f"{path} is not what `entracte bench --json` prints")
    return found


def compare(old: Mapping[str, Any], new: Mapping[str, Any], tolerance: float) -> Comparison:
    """Compare the modes that both ran, task by task.

    A quantity is worse if it grew by more than the tolerance, a share, and by more than its spread.
    Raises RequestError for runs of other machines, models or requests, and for those without a
    mode in common.
    """
    changes: list[Difference] = []
    broken: list[str] = []
    notes: list[str] = []
    _require_alike("machine", old["machine"], new["machine"], ("device", "threads"))
    _require_alike("run", old, new, ("model", "dtype"))
    versions = [each["machine"]["torch"] for each in (old, new)]
    if versions[0] != versions[1]:
        notes.append(f"torch was {versions[0]} and is {versions[1]}")
    compared = 0
    for task in old["tasks"].keys() & new["tasks"].keys():
        was, now = old["tasks"][task], new["tasks"][task]
        batches = [each["request"]["guidance_batch"] for each in (was, now)]
        asked = [name for name in was["request"] if name != "guidance_batch"]
        _require_alike(f"request ({task})", was["request"], now["request"], asked)
        if batches[0] != batches[1]:
            notes.append(f"{task}: the guidance batch was {batches[0]} and is {batches[1]}")
        notes += _slower_floors(task, was["floors"], now["floors"], tolerance)
        for mode, before in was["modes"].items():
            after = now["modes"].get(mode)
            if after is None or not before["runs"]:
                continue
            compared += 1
            if not after["runs"]:
                broken.append(f"{task}, {mode}: no longer runs: {after['skipped']}")
                continue
            changes += _changes(task, mode, before["runs"], after["runs"], tolerance)
            if _digests(before) != _digests(after):
                where = broken if versions[0] == versions[1] else notes
                where.append(f"{task}, {mode}: the latents have other bits")
            if min(len(before["runs"]), len(after["runs"])) == 1:
                notes.append(f"{task}, {mode}: ran once, so its spread is not known")
    if not compared:
        raise RequestError("the two runs have no task and mode in common")
    return Comparison(changes, broken, notes)


def _changes(
    task: str,
    mode: str,
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    tolerance: float,
) -> Iterator[Difference]:
    least = NEGLIGIBLE * statistics.median(run["end_to_end"] for run in before)
    memory = "peak_device_bytes" if before[0]["peak_device_bytes"] else "host_bytes"

    def change(what: str, unit: Literal["s", "bytes"], values: Sequence[list[float]]) -> Difference:
        medians = [statistics.median(each) for each in values]
        spread = max(max(each) - min(each) for each in values)
        grown = medians[1] - medians[0]
        enough = max(tolerance * medians[0], spread, least if unit == "s" else 0)
        verdict: Judgement = "same" if abs(grown) <= enough else "worse" if grown > 0 else "better"
        return Difference(task, mode, what, unit, medians[0], medians[1], spread, verdict)

    runs = before, after
    yield change("end to end", "s", [[run["end_to_end"] for run in each] for each in runs])
    for kind, words in (("stages", "{}"), ("steps", "a step of {}")):
        for name in dict.fromkeys(name for each in runs for name in each[0][kind]):
            values = [[run[kind].get(name, 0.0) for run in each] for each in runs]
            yield change(words.format(name), "s", values)
    yield change("peak memory", "bytes", [[run[memory] for run in each] for each in runs])


def _slower_floors(
    task: str, before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float
) -> Iterator[str]:
    for stage in before.keys() & after.keys():
        ratio = after[stage]["step"] / before[stage]["step"]
        if abs(ratio - 1) > tolerance:
            yield f"{task}: the floor of {stage} itself took {ratio:.2f} times as long"


def _digests(mode: Mapping[str, Any]) -> set[str]:
    return {run["latents"] for run in mode["runs"]}


def _require_alike(
    what: str, old: Mapping[str, Any], new: Mapping[str, Any], names: Sequence[str]
) -> None:
    for name in names:
        if old.get(name) != new.get(name):
            raise RequestError(
                f"the {what} has {name} {new.get(name)}, and had {old.get(name)}: "
                "such times cannot be compared"
            )


def _number(value: float, unit: str) -> str:
    return f"{value / 1e9:.2f} GB" if unit == "bytes" else f"{value * 1e3:,.1f} ms"
