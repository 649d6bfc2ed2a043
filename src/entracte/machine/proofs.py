"""What was found out of a machine once, cached in a file: for each question, an answer in words."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict

from entracte.errors import MediaError
from entracte.files import write_atomically

from .cache import Identity, cache_folder

logger = logging.getLogger(__name__)


def known_answers(identity: Identity) -> dict[str, list[str]]:
    """The answers of this machine with these versions, by question; none if there is no file."""
    try:
        found = json.loads((cache_folder() / _name(identity)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {question: list(map(str, words)) for question, words in found.items()}


def keep_answers(identity: Identity, answers: Mapping[str, list[str]]) -> None:
    """Write the file; logs a warning if that fails."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with write_atomically(folder / _name(identity)) as part:
            part.write_text(json.dumps(dict(answers), indent=1), encoding="utf-8")
    except (OSError, MediaError):
        logger.warning("What was found out of this machine cannot be kept")


def _name(identity: Identity) -> str:
    digest = hashlib.sha256(repr(asdict(identity)).encode()).hexdigest()[:16]
    return f"bits-{digest}.json"
