"""Two-stage video with sound from LTX-2.3, without a wait between the stages.

engine = Engine.open("path/to/model")
result = engine.generate(Request(prompt="A lighthouse at dusk"), output_path="lighthouse.mp4")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from entracte.imports import quick_imports
from entracte.version import __version__

if TYPE_CHECKING:
    from entracte.conditions import (
        ControlVideo,
        ExtendedVideo,
        ImageCondition,
        SoundCondition,
        SourceVideo,
    )
    from entracte.engine import Engine
    from entracte.errors import EntracteError
    from entracte.progress import Progress
    from entracte.recipes import Guidance
    from entracte.request import LoraSpec, Request
    from entracte.residency import Residency
    from entracte.result import Result

__all__ = [
    "ControlVideo",
    "Engine",
    "EntracteError",
    "ExtendedVideo",
    "Guidance",
    "ImageCondition",
    "LoraSpec",
    "Progress",
    "Request",
    "Residency",
    "Result",
    "SoundCondition",
    "SourceVideo",
    "__version__",
]

_HOMES = {
    "ControlVideo": "entracte.conditions",
    "Engine": "entracte.engine",
    "EntracteError": "entracte.errors",
    "ExtendedVideo": "entracte.conditions",
    "Guidance": "entracte.recipes",
    "ImageCondition": "entracte.conditions",
    "LoraSpec": "entracte.request",
    "Progress": "entracte.progress",
    "Request": "entracte.request",
    "Residency": "entracte.residency",
    "Result": "entracte.result",
    "SoundCondition": "entracte.conditions",
    "SourceVideo": "entracte.conditions",
}


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562): torch and its libraries take seconds, `--help` should not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'entracte' has no attribute {name!r}")
    with quick_imports():
        return import_module(_HOMES[name]).__dict__[name]
