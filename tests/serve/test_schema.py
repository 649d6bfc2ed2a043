"""The OpenAPI document is right: schemathesis asks for what it describes, and for other things."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .fake_maker import OpenFake
from .running import Local, local

# Streams do not end, and a session's end signs nobody out here.
ENDLESS = ("/v1/events", "/v1/videos/{video_id}/events")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("schema") / "data"
    with local(folder, OpenFake(step_s=0.0), max_queued=5) as running:
        yield running


@pytest.fixture(scope="module")
def document(served: Local) -> dict[str, Any]:
    found: dict[str, Any] = served.client.get("/openapi.json").json()
    return found


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_what_is_answered_is_documented(served: Local, mode: GenerationMode) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}
    found = schemathesis.openapi.from_url(f"{served.url}/openapi.json", headers=headers)
    operations = [each.ok() for each in found.exclude(path=list(ENDLESS)).get_all_operations()]
    assert len(operations) >= 18
    for operation in operations:

        @given(case=operation.as_strategy(mode))
        @settings(max_examples=12, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        def ask(case: schemathesis.Case) -> None:
            response = case.call(headers=headers, timeout=30)
            case.validate_response(response, checks=CHECKS)

        if mode is GenerationMode.NEGATIVE:
            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong where nothing is asked
                ask()
        else:
            ask()


def test_everything_is_described(document: dict[str, Any]) -> None:
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len({operation["operationId"] for *_, operation in operations}) == len(operations)
    for path, method, operation in operations:
        assert operation["summary"], (path, method)
        assert operation["description"], (path, method)
        if path not in ("/liveness", "/session"):
            assert "401" in operation["responses"], (path, method)
    bodies = document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    assert bodies.keys() == {"application/json", "multipart/form-data"}
    assert "prompt" in bodies["application/json"]["schema"]["required"]
