"""Measured rates, cached in files."""

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import BaseModel, Field, ValidationError

from entracte.errors import MediaError
from entracte.files import write_atomically

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ENTRACTE_CACHE_DIR"

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Identity:
    """The machine and versions that rates were measured with.

    memory: bytes of a separate device, else 0. threads: computing threads if the device is the CPU,
    else 0. slot: the PCI address.
    """

    device: str
    memory: int
    slot: str
    cores: int
    threads: int
    dtype: str
    driver: str
    torch: str
    entracte: str

    @property
    def file_name(self) -> str:
        """One name per machine, whatever its versions."""
        parts = (self.device, self.memory, self.slot, self.cores, self.threads, self.dtype)
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
        words = re.sub(r"[^a-z0-9]+", "-", self.device.lower()).strip("-")[:40]
        return f"rates-{words}-{self.dtype}-{digest}.json"


class Kept(BaseModel):
    """A file's contents. rates: by name. disks: rates by what names the disk. peers: rates between
    this device and others of the machine, by name.
    """

    identity: dict[str, str | int] = {}
    rates: dict[str, Rate] = {}
    disks: dict[str, Rate] = {}
    peers: dict[str, Rate] = {}


def cache_folder() -> Path:
    """Where the files are: ENTRACTE_CACHE_DIR, else the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("entracte")


def load(identity: Identity) -> Kept:
    """The cached rates of this machine; none, with a warning, if they are of other versions or
    invalid.
    """
    try:
        text = (cache_folder() / identity.file_name).read_text(encoding="utf-8")
        kept = Kept.model_validate_json(text)
    except FileNotFoundError:
        return Kept()
    except OSError as error:
        logger.warning("The rates kept of this machine cannot be read: %s", error.strerror)
        return Kept()
    except (ValidationError, UnicodeDecodeError):
        logger.warning("The file of rates kept of this machine is damaged; they are measured again")
        return Kept()
    mine = asdict(identity)
    if kept.identity == mine:
        return kept
    logger.warning(
        "The rates kept of this machine were measured with %s; they are measured again",
        _difference(kept.identity, mine),
    )
    return Kept()


def keep(identity: Identity, found: Kept) -> None:
    """Write the file; logs a warning if that fails."""
    kept = found.model_copy(update={"identity": asdict(identity)})
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with write_atomically(folder / identity.file_name) as part:
            part.write_text(kept.model_dump_json(indent=1), encoding="utf-8")
    except (OSError, MediaError) as error:
        # Not the message, which names the user's folder.
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = cause.strerror if isinstance(cause, OSError) else type(error).__name__
        logger.warning("Measured rates cannot be kept, and will be measured again: %s", reason)


def _difference(theirs: Mapping[str, str | int], mine: Mapping[str, str | int]) -> str:
    """The differences, such as `driver 550, not 560`."""
    differing = [name for name in mine if theirs.get(name) != mine[name]]
    return ", ".join(f"{n} {theirs.get(n, 'unknown')}, not {mine[n]}" for n in differing)
