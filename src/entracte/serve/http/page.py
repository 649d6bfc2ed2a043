"""The web page: files of the package, and the palette that it shares with the report."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Response

from entracte.report.colours import component_css, scheme_css

from .errors import ApiError
from .files import File

router = APIRouter(include_in_schema=False)

FOLDER = Path(str(files("entracte.serve").joinpath("page")))

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}

# Revalidated each time, and sent only if it changed.
FRESH = {"Cache-Control": "no-cache"}

NAMES = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}


@router.get("/", response_class=File)
def index() -> File:
    return _file("index.html")


@router.get("/page/style/palette.css")
def palette() -> Response:
    """The palette as custom properties of CSS."""
    return Response(scheme_css() + component_css(), headers=FRESH, media_type=TYPES[".css"])


@router.get("/page/{name:path}", response_class=File)
def part(name: str) -> File:
    return _file(name)


def _file(name: str) -> File:
    path = FOLDER / name
    if name not in NAMES or path.suffix not in TYPES:
        raise ApiError(404, "This file does not exist.", "not_found")
    return File(path, TYPES[path.suffix], FRESH)
