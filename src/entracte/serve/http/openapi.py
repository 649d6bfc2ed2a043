"""The OpenAPI document's parts on errors, and on bodies that we parse ourselves."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from entracte.request_fields import value_schemas
from entracte.serve.fields import VideoFields

from .auth import OPEN
from .credentials import COOKIE
from .schemas import ErrorBody

WORDS: Mapping[int, str] = {
    400: "A field is wrong.",
    401: "The API key is missing or wrong.",
    403: "An operator's key is needed, another site's page asks, or the server's name is wrong.",
    404: "Not found.",
    409: "It is not there yet, or never will be.",
    412: "The file is another one than the request names.",
    413: "It is too large.",
    415: "It is of another type.",
    416: "The file has no such part.",
    422: "The Idempotency-Key was used for another request.",
    429: "The queue is full, or other bodies are still being sent; see Retry-After.",
    503: "The server cannot do it now.",
}

JSON = "application/json"


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses of a route, with those of every route."""
    return {
        status: {"model": ErrorBody, "description": WORDS[status]}
        for status in (400, 401, 403, *statuses)
    }


def corrected(document: dict[str, Any]) -> dict[str, Any]:
    """The framework's document, without its errors, with our security schemes."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
            if path in OPEN:
                operation["security"] = []
            for status, response in operation["responses"].items():
                if status >= "400":  # else it would have the content type of a success
                    response["content"] = {JSON: next(iter(response["content"].values()))}
    parts = document["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(name, None)
    parts["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer"},
        "page": {"type": "apiKey", "in": "cookie", "name": f"{COOKIE}-PORT"},
    }
    document["security"] = [{"key": []}, {"page": []}]
    return document


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """A JSON body that the route parses itself."""
    schema = _inlined(kind.model_json_schema())
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def video_body() -> dict[str, Any]:
    """The body of a request for a video: JSON, or a form, whose lists are JSON in a string."""
    schema = _inlined(VideoFields.model_json_schema())
    form = {**schema, "properties": dict(schema["properties"])}
    for name, value in value_schemas(VideoFields).items():
        if value["type"] == "array":
            description = f"JSON, as the field {name} is elsewhere."
            form["properties"][name] = {"type": "string", "description": description}
    file = {"type": "string", "format": "binary"}
    form["properties"]["input_reference"] = {"type": "array", "items": file}
    content = {
        "multipart/form-data": {"schema": form},
        JSON: {"schema": schema},
    }
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its definitions inlined, because the document has no place for them."""
    definitions = schema.pop("$defs", {})

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return walk(definitions[node["$ref"].rpartition("/")[2]])
            return {name: walk(value) for name, value in node.items()}
        return [walk(each) for each in node] if isinstance(node, list) else node

    inlined: dict[str, Any] = walk(schema)
    return inlined
