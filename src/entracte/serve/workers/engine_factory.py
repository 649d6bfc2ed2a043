"""How a worker's process opens its engine; the server's process knows this much and no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entracte.config.model import ModelSettings

from .protocol import Runner


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """Opens the engine that settings describe, on a device; raises EntracteError.

    usual: the request that is to start at once. warm: whether to make a small video beforehand.
    """

    settings: ModelSettings
    device: str
    usual: Mapping[str, Any]
    warm: bool

    def __call__(self) -> Runner:
        from entracte.config.opening import open_engine
        from entracte.config.residency import build_residency

        from .runner import EngineRunner

        settings = self.settings.model_copy(update={"device": self.device})
        engine = open_engine(settings, build_residency(settings))
        return EngineRunner(engine, self.usual, self.warm)
