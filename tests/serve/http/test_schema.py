"""What the OpenAPI document says, held against what a live server answers."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from ..fake_runner import OpenFake
from ..running import PATIENCE, Local, local, small
from .asking import png

if TYPE_CHECKING:
    from schemathesis import Case

# Streams of all events do not end. Those of a video end with it: a finished one is listened to.
ENDLESS = ["events", "videoEvents"]

bounded = settings(
    max_examples=settings().max_examples // 6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A service that finishes no video but small ones."""
    folder = tmp_path_factory.mktemp("schema")
    (folder / "loras").mkdir()
    (folder / "loras" / "style.safetensors").write_bytes(b"")
    limits = {"max_queued": 10_000, "max_queued_per_key": 10_000, "max_pixels_frames": 64 * 64 * 97}
    with local(
        folder / "data", OpenFake(step_s=0.0), lora_folder=folder / "loras", **limits
    ) as running:
        yield running


@pytest.fixture(scope="module")
def document(served: Local) -> Any:
    import schemathesis  # takes seconds

    headers = {"Authorization": f"Bearer {served.key}"}
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json", headers=headers)


@pytest.fixture(scope="module")
def finished(served: Local) -> str:
    """A video with an image."""
    data = {name: str(value) for name, value in small().items()}
    files = {"input_reference": ("a.png", png(), "image/png")}
    video: str = served.client.post("/v1/videos", data=data, files=files).json()["id"]
    assert served.ended(video)["status"] == "completed"
    return video


@pytest.fixture(scope="module")
def checks() -> list[Any]:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    return [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]


def hold(operation: Any, send: Callable[["Case"], None]) -> None:
    """Send requests to an operation: those that its schema allows, and those that it does not."""
    from schemathesis import GenerationMode

    for mode in GenerationMode:
        if mode is GenerationMode.NEGATIVE and not can_be_wrong(operation):
            continue

        @bounded
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: "Case") -> None:
            send(case)

        ask()


def can_be_wrong(operation: Any) -> bool:
    """Whether there is anything in it to be wrong."""
    raw = operation.definition.raw
    return bool(raw.get("parameters") or raw.get("requestBody"))


def operations(document: Any, where: str = "") -> Iterator[Any]:
    for found in document.get_all_operations():
        operation = found.ok()
        if where in operation.path:
            yield operation


@pytest.mark.slow
def test_answers_are_as_documented(served: Local, document: Any, checks: list[Any]) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}

    seen = set()

    def send(case: "Case") -> None:
        answer = case.call_and_validate(
            base_url=served.url, headers=headers, checks=checks, timeout=PATIENCE
        )
        seen.add((case.operation.path, answer.status_code))

    asked = [each for each in operations(document) if identity(each) not in ENDLESS]
    assert len(asked) > 15
    for operation in asked:
        hold(operation, send)
        if identity(operation) in ("createVideo", "estimateVideo"):
            send(operation.Case(body=small(), media_type="application/json"))
            assert {(operation.path, 200), (operation.path, 400)} <= seen


@pytest.mark.slow
def test_answers_about_a_finished_video_are_as_documented(
    served: Local, document: Any, checks: list[Any], finished: str
) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}

    def send(case: "Case") -> None:
        case.path_parameters["video_id"] = finished
        case.call_and_validate(
            base_url=served.url, headers=headers, checks=checks, timeout=PATIENCE
        )

    for operation in operations(document, "{video_id}"):
        if identity(operation) != "deleteVideo":
            hold(operation, send)


@pytest.mark.slow
def test_answers_without_a_key_are_as_documented(
    served: Local, document: Any, checks: list[Any]
) -> None:
    for operation in operations(document):
        case = operation.Case(path_parameters={"video_id": "a", "number": 0, "model_id": "a"})
        answer = case.call_and_validate(
            base_url=served.url, headers={"Authorization": ""}, checks=checks, timeout=PATIENCE
        )
        needed = operation.definition.raw.get("security") != []
        assert (answer.status_code == 401) is needed, operation.path


def identity(operation: Any) -> str:
    found: str = operation.definition.raw["operationId"]
    return found
