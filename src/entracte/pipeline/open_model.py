"""A model as each process of an engine has it open: files, weights on its device, and caches."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from entracte.checkpoints.sources import ModelSource
from entracte.errors import CheckpointError, RequestError
from entracte.group import Member
from entracte.machine.torch_device import current
from entracte.models.float8 import multiplies_float8
from entracte.models.kernels import Execution, Kernels, execution
from entracte.parallel import Layout
from entracte.progress import Reporter
from entracte.request import Request
from entracte.residency import (
    Backend,
    DeviceManager,
    ManagerPlan,
    Residency,
    device_errors,
    open_backend,
)
from entracte.trace.trace import Trace

from .cache import Cache
from .lora_cache import Loras
from .model_weights import ModelWeights
from .outputs import Generated, Outputs
from .resolve import Resolver
from .resolved import PreparedRequest, ResolvedRequest
from .run import Run
from .runtime import Contexts, Previewers, RotaryTables, Runtime

# Cached contexts, 12.6 MB each at full size in bfloat16.
CACHED_PROMPTS = 32

# Shapes with cached rotary tables, up to 0.4 GB each at the largest sizes.
CACHED_SHAPES = 4

# Needed by every recipe.
COMPONENTS = ("text_encoder", "connectors", "transformer", "video_vae", "audio_vae", "vocoder")


class OpenModel:
    """Runs requests, with weights held as it is told. Used by one thread at a time.

    residency: any mode but `auto`. member: of the group whose ranks make each video together.
    Raises CheckpointError for a model that lacks components, and RequestError for a device that
    cannot multiply in its precision.
    """

    def __init__(
        self,
        source: ModelSource,
        backend: Backend,
        dtype: torch.dtype,
        residency: Residency,
        kernels: Kernels,
        member: Member,
    ) -> None:
        missing = [name for name in COMPONENTS if name not in source.components]
        if missing:
            raise CheckpointError(f"the model has no {', '.join(missing)}")
        if source.precision == "fp8" and not multiplies_float8(backend.device):
            raise RequestError(
                "precision fp8 needs a GPU of compute capability 8.9 or more (Ada, Hopper, "
                f"Blackwell); {backend.device} has less: use precision exact"
            )
        self.source = source
        self.backend = backend
        self.dtype = dtype
        self.loras = Loras(source.components)
        self.resolver = Resolver(source, self.loras, backend.device.type == "cuda")
        self._kernels: Kernels = kernels
        self._member = member
        self._connections = member.connections  # which captured graphs exchange by
        self._execution = self._new_execution()
        self._weights = self._new_weights(residency)
        self._contexts: Contexts = Cache(CACHED_PROMPTS)
        self._rotary: RotaryTables = Cache(CACHED_SHAPES)
        self._previewers: Previewers = Cache(1)

    @property
    def graphs(self) -> bool:
        """Whether blocks may be run from captured graphs."""
        return self._execution.graphs

    @property
    def manager(self) -> DeviceManager:
        """The device manager; may be broken, see `ModelWeights`."""
        return self._weights.manager

    def prepare(self, request: Request) -> PreparedRequest:
        """Resolve a request, after a look whether the model's files are still the same ones."""
        self.source.check_unchanged()
        return self.resolver.prepare(request)

    def plan(self, resolved: ResolvedRequest, residency: Residency | None = None) -> ManagerPlan:
        """Plan the weights of a request. residency: how they are held from now on, if otherwise."""
        if residency is not None and residency != self.manager.wanted:
            self.manager.configure(residency)
        return self.manager.plan(resolved.weight_phases, resolved.weights.lent)

    def load(self, plan: ManagerPlan) -> None:
        """Load the weights that a plan begins with."""
        with self._weights.in_use() as manager, manager.execute(plan):
            self.backend.synchronize()

    def run(
        self,
        prepared: PreparedRequest,
        plan: ManagerPlan,
        layouts: Sequence[Layout],
        trace: Trace,
        reporter: Reporter,
        outputs: Outputs,
    ) -> Generated:
        """Compute a video, on all ranks of the group at once. layouts: of each phase."""
        before = replace(self.backend.traffic)
        with (
            current(self.backend.device),
            self._weights.in_use() as manager,
            device_errors("computing"),
        ):
            runtime = self._runtime(manager)
            run = Run(runtime, prepared, plan, layouts, trace, reporter, outputs)
            with trace.weights(manager.recording()):
                made = run.generate()
        for what, number in asdict(self.backend.traffic.since(before)).items():
            trace.count(f"weights_{what}", number)
        return made

    def forget_prompts(self) -> None:
        self._contexts = Cache(CACHED_PROMPTS)

    def forget_graphs(self) -> None:
        """Free captured graphs, with the connections to other ranks that they hold."""
        self._execution = self._new_execution()

    def reopen(self, residency: Residency) -> None:
        """Open the backend again, as all ranks of a group that was started again do."""
        self.manager.close()
        self.backend = open_backend(self.backend.device, self._member)
        self._weights = self._new_weights(residency)
        self.forget_graphs()
        self.forget_prompts()

    def close(self) -> None:
        self.manager.close()

    def _new_execution(self) -> Execution:
        transformer = self.source.components["transformer"].computed_bytes(self.dtype.itemsize)
        return execution(self.backend.device, self._kernels, transformer)

    def _new_weights(self, residency: Residency) -> ModelWeights:
        return ModelWeights(self.source, self.backend, self.dtype, self.loras.adapter, residency)

    def _runtime(self, manager: DeviceManager) -> Runtime:
        if self._member.connections != self._connections:
            self._connections = self._member.connections
            self.forget_graphs()
        return Runtime(
            manager=manager,
            device=self.backend.device,
            dtype=self.dtype,
            latent_channels=self.source.components["video_vae"].config["latent_channels"],
            contexts=self._contexts,
            rotary=self._rotary,
            previewers=self._previewers,
            run_blocks=self._execution.blocks,
            calls=self._execution.calls,
            decoders=self._execution.decoders,
            mesh=self._member.mesh,
        )
