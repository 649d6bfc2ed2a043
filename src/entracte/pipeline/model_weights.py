"""The device manager of an open model, recreated after a device fault."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from entracte.checkpoints.loading import component_spec
from entracte.checkpoints.sources import ModelSource
from entracte.errors import DeviceFault
from entracte.residency import Backend, ConcurrentUse, DeviceManager, OpenAdapter, Residency
from entracte.stages import Act, stages_of

logger = logging.getLogger(__name__)


class ModelWeights:
    """Owns the device manager. Only `in_use` recreates it, so `manager` may be broken."""

    def __init__(
        self,
        source: ModelSource,
        backend: Backend,
        dtype: torch.dtype,
        adapters: OpenAdapter,
        residency: Residency,
    ) -> None:
        self._source = source
        self._backend = backend
        self._dtype = dtype
        self._adapters = adapters
        self._broken = False
        self.manager = self._create(residency)

    @contextmanager
    def in_use(self) -> Iterator[DeviceManager]:
        """The device manager, recreated if the last use ended with a DeviceFault.

        Raises DeviceFault if the device does not recover.
        """
        if self._broken:
            logger.warning("the device failed; weights are loaded again")
            try:
                self.manager.release()
            except DeviceFault as error:
                raise DeviceFault(
                    f"the device does not recover; start the process again ({error})"
                ) from error
            self.manager = self._create(self.manager.wanted)
            self._broken = False
        try:
            yield self.manager
        except DeviceFault:
            self._broken = True
            raise

    def _create(self, residency: Residency) -> DeviceManager:
        components, version = self._source.components, self._source.version
        device, dtype = self._backend.device, self._dtype
        return DeviceManager(
            [component_spec(each, version, device, dtype) for each in components.values()],
            self._backend,
            residency,
            adapted="transformer",
            adapters=self._adapters,
            concurrent_uses=[
                each for each in concurrent_uses() if each.components <= components.keys()
            ],
        )


def concurrent_uses() -> list[ConcurrentUse]:
    """Which components a run uses at the same time, besides the transformer."""
    found: dict[frozenset[str], bool] = {}
    for stage in stages_of():
        if stage.uses:
            together = frozenset(stage.uses)
            # Between the acts the transformer's memory for its phases stays in use.
            found[together] = found.get(together, False) or stage.act is Act.INTERVAL
    return [ConcurrentUse(each, in_phases) for each, in_phases in found.items()]
