"""How a worker process opens its engine. The server imports this, but not torch."""

from dataclasses import dataclass

from entracte.config.model import ModelSettings
from entracte.imports import quick_imports
from entracte.request import Request

from .protocol import Runner


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """Opens the engine that settings describe; raises EntracteError.

    device: its name, or those of several, joined by commas, which make each video together.
    usual: the request to load weights for. warm: whether to make a small video beforehand.
    """

    settings: ModelSettings
    device: str
    usual: Request
    warm: bool

    def __call__(self) -> Runner:
        with quick_imports():
            from entracte.config.opening import open_engine
            from entracte.config.residency import build_residency

            from .runner import EngineRunner

        engine = open_engine(self.settings, build_residency(self.settings), [self.device])
        return EngineRunner(engine, self.usual, self.warm)
