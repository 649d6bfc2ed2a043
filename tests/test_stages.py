"""A stage is declared once: everything else takes it from there, and no other name is in use."""

import ast
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import entracte
from entracte import Engine, Guidance, ImageCondition, Progress, Request, Residency, Result, stages
from entracte.bench.published import ROWS
from entracte.machine.hardware import Hardware, Rates
from entracte.pipeline.model_weights import concurrent_uses
from entracte.pipeline.run import Run
from entracte.recipes import RECIPES
from entracte.residency.simulated import SimulatedAccelerator
from entracte.serve.http.serializers import stage_list
from entracte.stages import Act, Stage, stages_of

from .serve.running import local

PACKAGE = Path(entracte.__file__).parent
ROOT = PACKAGE.parents[1]
HOME = PACKAGE / "stages.py"
PAGE = PACKAGE / "serve" / "page"

SLOW = Hardware(
    "slow",
    10**11,
    10**11,
    Rates(matmul=1e10, merge=1e9, device_copy=1e9, h2d=1e8, d2h=1e8, pageable=1e7, disk=1e7),
)

HUM = Stage(
    "hum along",
    Act.FINISH,
    "Humming",
    uses=("audio_vae", "text_encoder"),
    efficiency=0.35,
    row="AVDecoding",
)


class HummingRun(Run):
    """A run with one more stage."""

    def _decode(self, *given: Any) -> Any:
        with self._stages.enter(HUM):
            pass
        return super()._decode(*given)


def open_engine(model: Path) -> Engine:
    return Engine.open(
        model, residency=Residency("auto"), backend=SimulatedAccelerator(), hardware=SLOW
    )


def small(**values: Any) -> Request:
    size = {"height": 128, "width": 128, "num_frames": 9, "num_inference_steps": 1}
    unguided = {"video_guidance": Guidance(), "audio_guidance": Guidance()}
    return Request(**({"prompt": "A quiet street"} | size | unguided | values))


def generate(engine: Engine, request: Request, **options: Any) -> tuple[Result, list[Progress]]:
    reported: list[Progress] = []
    result = engine.generate(
        request, progress=reported.append, preview=lambda _: None, keep_frames=False, **options
    )
    return result, reported


def distinct(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


def test_a_stage_is_declared_and_entered_and_found_everywhere(
    demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "CLOSING", (HUM, *stages.CLOSING))
    monkeypatch.setattr("entracte.pipeline.open_model.Run", HummingRun)
    with open_engine(demo_model) as engine:
        result, reported = generate(engine, small())
    spans = [span.name for span in result.trace.spans]
    assert spans.index(HUM.name) == spans.index("decode audio") - 1
    assert HUM.name in {progress.stage for progress in reported}

    assert result.decision is not None
    predicted = {stage.name: stage for stage in result.decision.chosen.prediction.stages}
    assert set(HUM.uses) <= {name for name, n in predicted[HUM.name].weights.items() if n}
    assert frozenset(HUM.uses) in {each.components for each in concurrent_uses()}

    with local(tmp_path) as served:
        data = served.client.get("/v1/stages").json()["data"]
    assert {
        "id": HUM.name,
        "object": "stage",
        "label": HUM.label,
        "act": "Finish",
        "pipelines": list(RECIPES),
    } in data
    assert on_page(data, "words", HUM.name) == HUM.label
    assert on_page(data, "actOf", HUM.name) == "Finish"


def on_page(data: list[dict[str, Any]], method: str, argument: str) -> Any:
    """What the page makes of the service's stages."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("the page's part is not tested: there is no node")
    module = (PAGE / "stages.js").read_text()
    script = f"""
        const {{ Stages }} = await import("data:text/javascript," + encodeURIComponent({json.dumps(module)}));
        console.log(JSON.stringify(new Stages({json.dumps(data)}).{method}({json.dumps(argument)})));
    """  # noqa: E501
    command = [node, "--input-type=module", "--eval", script]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_the_acts_of_a_pipeline() -> None:
    data = [stage.model_dump() for stage in stage_list().data]
    assert on_page(data, "acts", "two-stage") == ["Prepare", "Act 1", "Interval", "Act 2", "Finish"]
    assert on_page(data, "acts", "distilled") == ["Prepare", "Act 1", "Interval", "Act 2", "Finish"]
    assert on_page(data, "acts", "one-stage") == ["Prepare", "Act 1", "Finish"]


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["two-stage", "one-stage"])
def test_a_run_enters_all_declared_stages_in_their_order(
    demo_model: Path, tmp_path: Path, pipeline: str
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "first.png")
    image = ImageCondition(path=tmp_path / "first.png", frame=0)
    with open_engine(demo_model) as engine:
        request = small(images=(image,), pipeline=pipeline)
        result, reported = generate(engine, request, output_path=tmp_path / "video.mp4")
    declared = stages_of((phase.name for phase in request.recipe.phases), request.recipe.gives)
    assert distinct(span.name for span in result.trace.spans) == [each.name for each in declared]
    on_host = {span.name for span in result.trace.spans if span.of_host}
    assert on_host == {each.name for each in declared if each.on_host}
    assert distinct(each.stage for each in reported) == [s.name for s in declared if s.label]
    assert result.decision is not None
    planned = distinct(stage.name for stage in result.decision.chosen.prediction.stages)
    assert planned == [each.name for each in declared if each.efficiency]


def test_the_published_rows_have_stages() -> None:
    assert {stage.row for stage in stages_of()} - {""} == set(ROWS)


def test_what_is_reported_has_words_in_the_api() -> None:
    listed = [stage.id for stage in stage_list().data]
    assert listed == [stage.name for stage in stages_of() if stage.label]


def literals(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_name_of_a_stage_is_written_anywhere_else() -> None:
    names = {stage.name for stage in stages_of()} | {stage.kind for stage in stages_of()}
    found = {
        path.relative_to(PACKAGE).as_posix(): written
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != HOME and (written := names.intersection(literals(path)))
    }
    assert found == {}
    for path in PAGE.rglob("*.js"):
        text = path.read_text()
        assert not [name for name in names if f'"{name}"' in text], path


def test_the_documentation_knows_no_other_stage() -> None:
    lines = (ROOT / "docs" / "explanation" / "a-request.md").read_text().splitlines()
    table = lines[lines.index("| stage | what it does |") + 2 :]
    written = [line.split("|")[1].strip() for line in table[: table.index("")]]
    known = [stage.kind for stage in stages_of()]
    assert set(written) <= set(known)
    assert sorted(written, key=known.index) == written
    reported = {stage.kind for stage in stages_of() if stage.label}
    assert reported <= set(written)
