"""Where weights live, and how they get to the device in time. Knows nothing of LTX.

It works on modules, tensors and names, and can be used alone: `docs/how-to/device-manager.md`.
This is its face: everything that other packages use is imported from here.
"""

from .backends import open_backend
from .backends.cuda_stream import CudaStream, device_errors
from .backends.host import Instant
from .backends.peers import NoPeers, Peers
from .backends.protocol import Backend, Direction, Event, HostMemory, Mark, Stream
from .budget import ConcurrentUse, ManagerPlan
from .buffer_key import BlockWeights, BufferKey
from .formats import ProductFormat, WeightFormat
from .layout import AdapterLayout, UnitLayout, as_stored, computed_parts, lay_out, unit_of
from .manager import DeviceManager
from .merge import Change, Changes, Dora, Factors, Full, Hadamard, Kronecker, WeightMerge
from .phase_run import PhaseRun
from .plan import SLOTS, Plan, RankShare, Sizes, make_plan, spread
from .policy import (
    AUTO,
    MODES,
    Auto,
    ComponentPolicy,
    Mode,
    Place,
    Residency,
    SnapshotPolicy,
    resolve_policy,
)
from .recorder import BlockRun, Record, Transfer
from .spec import (
    BASE,
    Adapter,
    AdapterSource,
    ComponentSpec,
    Computed,
    MemoryAdapter,
    OpenAdapter,
    Stored,
    TensorSource,
    TensorSpec,
    WeightPhase,
    WeightSet,
    WeightSource,
    distinct,
    in_memory,
)
from .unit_reader import scratch_layouts
from .usage import OwnMemory, Row, Where

__all__ = [
    "AUTO",
    "BASE",
    "MODES",
    "SLOTS",
    "Adapter",
    "AdapterLayout",
    "AdapterSource",
    "Auto",
    "Backend",
    "BlockRun",
    "BlockWeights",
    "BufferKey",
    "Change",
    "Changes",
    "ComponentPolicy",
    "ComponentSpec",
    "Computed",
    "ConcurrentUse",
    "CudaStream",
    "DeviceManager",
    "Direction",
    "Dora",
    "Event",
    "Factors",
    "Full",
    "Hadamard",
    "HostMemory",
    "Instant",
    "Kronecker",
    "ManagerPlan",
    "Mark",
    "MemoryAdapter",
    "Mode",
    "NoPeers",
    "OpenAdapter",
    "OwnMemory",
    "Peers",
    "PhaseRun",
    "Place",
    "Plan",
    "ProductFormat",
    "RankShare",
    "Record",
    "Residency",
    "Row",
    "Sizes",
    "SnapshotPolicy",
    "Stored",
    "Stream",
    "TensorSource",
    "TensorSpec",
    "Transfer",
    "UnitLayout",
    "WeightFormat",
    "WeightMerge",
    "WeightPhase",
    "WeightSet",
    "WeightSource",
    "Where",
    "as_stored",
    "computed_parts",
    "device_errors",
    "distinct",
    "in_memory",
    "lay_out",
    "make_plan",
    "open_backend",
    "resolve_policy",
    "scratch_layouts",
    "spread",
    "unit_of",
]
