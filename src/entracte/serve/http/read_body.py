"""Parses request bodies, form or JSON, into fields and files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from entracte.serve.keys import Key
from entracte.serve.strict_json import GivenTwice, TooManyParts, parse
from entracte.validation import plain

from .errors import ApiError, bad_request
from .turns import Pools

FILES = "input_reference"
MAX_FIELDS = 64
CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})

# Smaller bodies are parsed faster than a thread starts.
AT_ONCE_BYTES = 64 * 1024

Fields = TypeVar("Fields", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Body:
    """A body. fields: by name; strings in a form. nbytes: of the fields. files: of a form."""

    fields: dict[str, Any]
    nbytes: int
    files: Sequence[bytes] = ()


async def read_body(request: Request, max_files: int, max_part_bytes: int) -> Body:
    """Read a form or JSON; raises ApiError for anything else, and if it is damaged."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await _read_json(request)
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        _require_unicode(request)
        return await _read_form(request, max_files, max_part_bytes)
    raise ApiError(415, "Send multipart/form-data or application/json.", "unsupported_media_type")


async def read_json(request: Request, kind: type[Fields]) -> Fields:
    """Read a JSON object as a model; raises ApiError for anything else."""
    return await understood(request, await _read_json(request), kind)


async def understood(request: Request, body: Body, kind: type[Fields]) -> Fields:
    """Validate a body's fields; raises ApiError, naming the first wrong one and why."""
    if body.nbytes <= AT_ONCE_BYTES:
        return _checked(kind, body.fields)
    pools: Pools = request.app.state.pools
    return await pools.parsing.run(_owner(request), _checked, kind, body.fields)


async def _read_json(request: Request) -> Body:
    text = bytearray()
    try:
        async for piece in request.stream():
            text += piece
    except ClientDisconnect:
        raise _too_early() from None
    try:
        if len(text) <= AT_ONCE_BYTES:
            found = parse(text)
        else:  # in a thread, so that others are answered meanwhile
            pools: Pools = request.app.state.pools
            found = await pools.parsing.run(_owner(request), parse, text)
    except TooManyParts as error:
        raise bad_request(f"The body is too much: {error}.", code="too_many") from None
    except GivenTwice as error:
        name = error.name[:100]
        raise bad_request(f"{name} is given twice.", name, "given_twice") from None
    except ValueError:
        raise bad_request("The body is not JSON.", code="invalid_json") from None
    if not isinstance(found, dict):
        raise bad_request("The body must be a JSON object.", code="invalid_json")
    return Body(found, len(text))


def _owner(request: Request) -> str:
    key: Key | None = request.scope.get("state", {}).get("key")  # none while signing in
    return "" if key is None else key.id


def _checked(kind: type[Fields], fields: dict[str, Any]) -> Fields:
    if len(fields) > MAX_FIELDS:
        raise bad_request(f"There are over {MAX_FIELDS} fields.", code="too_many")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        finding = error.errors()[0]
        name = str(finding["loc"][0]) if finding["loc"] else None
        where = ".".join(str(part) for part in finding["loc"])[:200]
        if finding["type"] == "extra_forbidden":
            raise _unknown(where, str(finding["loc"][-1])) from None
        if finding["type"] == "missing":
            raise bad_request(f"{where} is missing.", name, "missing_field") from None
        raise bad_request(f"{where}: {plain(finding)}", name, "invalid_value") from None


async def _read_form(request: Request, max_files: int, max_part_bytes: int) -> Body:
    try:
        async with request.form(
            max_files=max_files + 1, max_fields=MAX_FIELDS, max_part_size=max_part_bytes
        ) as form:
            fields: dict[str, Any] = {}
            files: list[bytes] = []
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name not in (FILES, f"{FILES}[]"):
                        raise bad_request(f"Files must be named {FILES}.", name[:100])
                    files.append(await value.read())
                elif name in fields:
                    raise bad_request(f"{name[:100]} is given twice.", name[:100], "given_twice")
                else:
                    fields[name] = value
            return Body(fields, sum(map(len, fields.values())), files)
    except HTTPException as error:
        raise bad_request(f"The form is damaged: {error.detail}", code="invalid_form") from None
    except ClientDisconnect:
        raise _too_early() from None


def _require_unicode(request: Request) -> None:
    """Raise ApiError for other charsets: not all of them can be decoded."""
    _, options = parse_options_header(request.headers.get("content-type"))
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in CHARSETS:
        raise bad_request("The charset of a form must be utf-8.", code="invalid_form")


def _too_early() -> ApiError:
    return bad_request("The body ended too early.", code="incomplete_body")


def _unknown(where: str, name: str) -> ApiError:
    words = f"There is no field {where!r}."
    if "[" in name:
        base = name.partition("[")[0]
        words += f" Give lists and objects as JSON in one string: {base}='[…]'."
    return bad_request(words, name[:100], "unknown_field")
