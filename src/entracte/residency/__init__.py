"""Where weights live, and how they get to the device in time. Knows nothing of LTX.

It works on modules, tensors and names, and can be used alone: see `docs/residency.md`.
"""

from entracte.residency.backends.opening import open_backend
from entracte.residency.backends.protocol import Backend

from .adapters import AdapterSource, MemoryAdapter, OpenAdapter, in_memory
from .budget import ManagerPlan, Moment
from .component import ComponentSpec, TensorSource, TensorSpec, WeightSource
from .manager import DeviceManager
from .merge import Change, Changes, Dora, Factors, Full, Hadamard, Kronecker
from .phase_run import ComponentRun
from .policy import Mode, Place, Residency, SnapshotPolicy
from .usage import Row
from .weights import BASE, Adapter, WeightPhase, WeightSet

__all__ = [
    "BASE",
    "Adapter",
    "AdapterSource",
    "Backend",
    "Change",
    "Changes",
    "ComponentRun",
    "ComponentSpec",
    "DeviceManager",
    "Dora",
    "Factors",
    "Full",
    "Hadamard",
    "Kronecker",
    "ManagerPlan",
    "MemoryAdapter",
    "Mode",
    "Moment",
    "OpenAdapter",
    "Place",
    "Residency",
    "Row",
    "SnapshotPolicy",
    "TensorSource",
    "TensorSpec",
    "WeightPhase",
    "WeightSet",
    "WeightSource",
    "in_memory",
    "open_backend",
]
