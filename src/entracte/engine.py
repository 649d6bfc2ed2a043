"""The engine: opens a model, owns its device manager, runs a recipe on a request."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.sources import ModelSource
from entracte.errors import (
    Cancelled,
    CheckpointError,
    ClosedError,
    EntracteError,
    OutOfMemory,
    RequestError,
    ResidencyError,
)
from entracte.files import require_writable
from entracte.group import ALONE, Alone, Leader, Member, SharedOrder, launched_followers
from entracte.machine.hardware import Hardware
from entracte.machine.torch_device import current, pick_device, pick_devices
from entracte.media.background_writer import BackgroundWriter
from entracte.media.output import check_output
from entracte.models.kernels import Execution, Kernels, execution
from entracte.models.transformer import TransformerConfig
from entracte.notices import Notice
from entracte.orders import EngineOrder, ForgetPrompts, HoldWeights, LoadWeights, MakeVideo
from entracte.parallel import ONE_RANK, Layout, Parallel, default_layout
from entracte.pipeline.bits import notices_of_bits
from entracte.pipeline.cache import Cache
from entracte.pipeline.lora_cache import Loras
from entracte.pipeline.model_weights import ModelWeights
from entracte.pipeline.open_model import Contexts, OpenModel, Previewers, RotaryTables
from entracte.pipeline.outputs import Outputs
from entracte.pipeline.preview import PreviewCallback
from entracte.pipeline.resolve import Resolver
from entracte.pipeline.resolved import PreparedRequest, ResolvedRequest
from entracte.pipeline.run import Run
from entracte.planner.decision import Decision
from entracte.planner.model_planner import ModelPlanner, named
from entracte.planner.prediction import Prediction
from entracte.progress import ProgressCallback, Reporter
from entracte.request import Request
from entracte.residency import (
    AUTO,
    Backend,
    DeviceManager,
    ManagerPlan,
    Residency,
    Row,
    device_errors,
    open_backend,
)
from entracte.result import ComputedVideo, Result
from entracte.stages import MUX, VALIDATE
from entracte.trace.dump import Dump
from entracte.trace.trace import Trace, TraceOptions
from entracte.trace.write_dump import perf_dump

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

# Cached contexts, 12.6 MB each at full size in bfloat16.
CACHED_PROMPTS = 32

# Shapes with cached rotary tables, up to 0.4 GB each at the largest sizes.
CACHED_SHAPES = 4

# Needed by every recipe.
COMPONENTS = ("text_encoder", "connectors", "transformer", "video_vae", "audio_vae", "vocoder")


class Engine:
    """An open model. Thread-safe; generations run one after another."""

    def __init__(
        self,
        source: ModelSource,
        backend: Backend,
        dtype: torch.dtype,
        residency: Residency | None = None,
        hardware: Hardware | None = None,
        kernels: Kernels = "auto",
        member: Member = ALONE,
        parallel: Parallel = "auto",
    ) -> None:
        missing = [name for name in COMPONENTS if name not in source.components]
        if missing:
            raise CheckpointError(f"the model has no {', '.join(missing)}")
        self.source = source
        self.backend = backend
        self._dtype = dtype
        self._loras = Loras(source.components)
        self._resolver = Resolver(source, self._loras, backend.device.type == "cuda")
        self._one_at_a_time = threading.RLock()
        self._closed = False
        self._last_written: BackgroundWriter | None = None
        self._decision: Decision | None = None  # of the last request, in mode auto
        self._cheaper = False  # than the last one, which ran out of memory
        self._wanted = residency or Residency(AUTO)
        self._kernels: Kernels = kernels
        self._member = member
        self._parallel: Parallel = parallel
        self._execution = self._new_execution()
        self._mesh = member.mesh  # which graphs exchange by
        self._planner = ModelPlanner(
            source,
            dtype,
            self._loras.adapter,
            backend,
            hardware,
            graphs=self._execution.graphs,
            parallel=self._parallel,
        )
        self._weights = ModelWeights(
            source, backend, dtype, self._loras.adapter, named(self._wanted)
        )
        self._contexts: Contexts = Cache(CACHED_PROMPTS)
        self._rotary: RotaryTables = Cache(CACHED_SHAPES)
        self._previewers: Previewers = Cache(1)

    @classmethod
    def open(
        cls,
        model: str | Path | None = None,
        *,
        checkpoint_path: str | Path | tuple[str | Path, ...] | None = None,
        gemma_root: str | Path | None = None,
        distilled_lora: str | Path | tuple[str | Path, float] | None = None,
        spatial_upsampler_path: str | Path | None = None,
        pipeline: str = "two-stage",
        device: str = "auto",
        devices: Sequence[str] = (),
        parallel: Parallel = "auto",
        dtype: str = "bfloat16",
        residency: Residency | None = None,
        backend: Backend | None = None,
        hardware: Hardware | None = None,
        kernels: Kernels = "auto",
        member: Member | None = None,
    ) -> Self:
        """Open a model: find its files and read their headers. `load` or `generate` reads weights.

        model: a folder, or a hub repository. Explicit paths win over what it holds.
        distilled_lora: a path, or a path and a strength.
        pipeline: which checkpoint to prefer if the model has a base and a distilled one.
        device: "auto" (CUDA if available), "cpu", "cuda" or "cuda:N".
        devices: several of them, which make each video together; this process has the first, and
            starts another for each of the others. parallel: how they share out the work: "auto",
            "guidance" (passes only), "sequence" (the video's tokens), or "off": the first works
            alone.
        dtype: "bfloat16", as the model was trained, or "float32".
        residency: where weights live (default: mode `auto`; `resident` on a custom backend, whose
        speed is
            unknown).
        backend: a custom backend instead of the device's own, such as a simulated one.
        hardware: the machine for the planner (default: probed when needed).
        kernels: on a GPU "auto" (fused kernels, from captured graphs where that pays), "fused"
            (without graphs) or "plain" (torch's operators).
        member: this process's place in a group that was started elsewhere, instead of `devices`.

        Raises CheckpointError if files are missing, damaged, or of another model, and
        ResidencyError if the residency contradicts itself or the model.
        """
        if dtype not in DTYPES:
            raise RequestError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        paths = ModelPaths(
            checkpoint=_paths(checkpoint_path),
            gemma_root=None if gemma_root is None else Path(gemma_root),
            upsampler=None if spatial_upsampler_path is None else Path(spatial_upsampler_path),
            distilled_lora=_path_and_strength(distilled_lora),
        )
        open_source = partial(
            open_model,
            None if model is None else str(model),
            paths,
            distilled=pipeline == "distilled",
        )
        if residency is None and backend is not None and hardware is None:
            residency = Residency("resident")
        if len(devices) > 1 and parallel != "off":
            return cls.lead(
                open_source,
                pick_devices(devices),
                DTYPES[dtype],
                residency,
                hardware,
                kernels,
                parallel,
            )
        source = open_source()
        member = member or ALONE
        backend = backend or open_backend(pick_device(devices[0] if devices else device), member)
        return cls(source, backend, DTYPES[dtype], residency, hardware, kernels, member, parallel)

    @classmethod
    def lead(
        cls,
        open_source: Callable[[], ModelSource],
        devices: Sequence[torch.device],
        dtype: torch.dtype,
        residency: Residency | None = None,
        hardware: Hardware | None = None,
        kernels: Kernels = "auto",
        parallel: Parallel = "auto",
    ) -> Self:
        """Open a model on several devices, with a process for each but the first; see `open`.

        open_source: finds the model's files, in every process; can be pickled.
        """
        source = open_source()
        leader = Leader(
            devices,
            OpenAlike(open_source, dtype, residency or Residency(AUTO), kernels, parallel),
            processes=launched_followers(len(devices)),
        )
        try:
            backend = open_backend(devices[0], leader)
            made = cls(source, backend, dtype, residency, hardware, kernels, leader, parallel)
            leader.wait_until_open()
            return made
        except BaseException:
            leader.close()
            raise

    def generate(
        self,
        request: Request,
        *,
        output_path: str | Path | None = None,
        latents_path: str | Path | None = None,
        progress: ProgressCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
        keep_frames: bool = True,
        trace: TraceOptions | None = None,
        preview: PreviewCallback | None = None,
    ) -> Result:
        """Make a video with sound.

        output_path: an .mp4 file, or an existing folder for PNG frames and a WAV file.
        latents_path: a safetensors file for every phase's latents.
        progress: called at every stage and step. should_stop: called there; True stops the run.
        keep_frames: whether the result carries the frames, 3 bytes a pixel.
        trace: what the result's trace records. preview: called with a small picture at every step.

        Raises RequestError, CheckpointError, MediaError or BudgetError before any weight is read if
        the request cannot be carried out; MediaError if the output cannot be written; NotFinite
        after a stage with NaN or infinite results; OutOfMemory; Cancelled. After a DeviceFault the
        next call loads the weights from the files again.
        """
        return self.compute(
            request,
            output_path=output_path,
            latents_path=latents_path,
            progress=progress,
            should_stop=should_stop,
            keep_frames=keep_frames,
            trace=trace,
            preview=preview,
        ).result()

    def compute(
        self,
        request: Request,
        *,
        output_path: str | Path | None = None,
        latents_path: str | Path | None = None,
        progress: ProgressCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
        keep_frames: bool = True,
        trace: TraceOptions | None = None,
        preview: PreviewCallback | None = None,
    ) -> ComputedVideo:
        """Make a video as `generate` does, but return as soon as the device is free.

        What then is not encoded yet waits in host memory for a thread, which also calls
        `should_stop`, while the next request computes. Only one video is being written at a time:
        the next one waits before its picture is decoded.

        Raises what `generate` does, but what fails in the thread is raised by the result.
        """
        self._require_open()
        _require(request, Request, RequestError("generate takes a Request, such as Request('…')"))
        output = None if output_path is None else Path(output_path)
        latents = None if latents_path is None else Path(latents_path)

        def attempt() -> ComputedVideo:
            reporter = Reporter(progress, should_stop, self._member.agree)
            record = Trace(self.backend, trace)
            with self._writer(output, reporter) as video:
                outputs = Outputs(video, latents, keep_frames, preview)
                result = self._generate(request, output, outputs, reporter, record)
                if video is not None:
                    reporter.stage(MUX.name)
                    self._last_written = video
            return ComputedVideo(result, video, self.backend.now())

        with self._one_at_a_time, torch.inference_mode():
            self._restart()
            self._cheaper = False
            try:
                return attempt()
            except OutOfMemory:
                if not self._next_cheaper():
                    raise
            self._restart()
            return attempt()

    def _generate(
        self,
        request: Request,
        output_path: Path | None,
        outputs: Outputs,
        reporter: Reporter,
        trace: Trace,
        order: MakeVideo | None = None,
    ) -> Result:
        """order: the leader's, where this process follows."""
        with trace.stage(VALIDATE.name, VALIDATE.on_host), device_errors("preparing"):
            if output_path is not None:
                check_output(output_path)
            if outputs.latents_path is not None:
                require_writable(outputs.latents_path)
            prepared, plan = self._plan(request, order)
        if order is None:
            order = self._order(prepared.resolved, trace)
        notices = self._notices_of_bits(prepared.resolved, order)
        trace.exchange_shares = order.exchange_shares
        reporter.begin(prepared.resolved.work)
        before = replace(self.backend.traffic)
        with (
            self._sharing(order) as shared,
            current(self.backend.device),
            self._weights.in_use() as manager,
            device_errors("computing"),
        ):
            opened = self._open_model(manager)
            run = Run(opened, prepared, plan, order.layouts, trace, reporter, outputs)
            with trace.weights(manager.recording()):
                made = run.generate()
        for what, number in asdict(self.backend.traffic.since(before)).items():
            trace.count(f"weights_{what}", number)
        return Result(
            request=prepared.resolved.request,
            frames=made.frames,
            audio=made.audio,
            sample_rate=made.sample_rate,
            latents=made.latents,
            trace=trace,
            output_path=output_path,
            decision=self._decision,
            warnings=prepared.resolved.weights.notices + notices,
            followers=tuple(each for each in shared.reports if isinstance(each, Dump)),
        )

    def plan(self, request: Request) -> Decision:
        """Plan a request like this one, and predict its time and memory.

        Raises what `generate` raises before its first stage.
        """
        with self._one_at_a_time:
            return self._planner.decide(self._resolver.prepare(request).resolved, self._wanted)

    def predict(self, request: Request) -> Prediction | None:
        """Predict a request, with weights held as for the last one.

        May be called from any thread, also during another request; None before the first plan.
        Prompts are assumed to be new, and images are not read. Raises RequestError and
        CheckpointError for what the model cannot do, prompts of too many tokens among them.
        """
        resolved = self._resolver.resolve(request)
        self._resolver.tokens(resolved)  # raises for too many
        return self._planner.predict(resolved, self._wanted)

    def warm_up(self, request: Request) -> Result:
        """Run a request, discard the video, and calibrate later plans with the measured times.

        Predictions are corrected, and the next request is planned again.
        """
        with self._one_at_a_time:
            self.generate(request, keep_frames=False)  # loads weights and compiles kernels
            result = self.generate(request, keep_frames=False)
            self._planner.learn(result.decision or self.plan(request), result.trace)
            return result

    def load(self, request: Request) -> None:
        """Load weights for a request like this one, so that it starts at once.

        Raises what `generate` raises before its first stage.
        """
        with self._one_at_a_time, torch.inference_mode():
            self._restart()
            prepared, plan = self._plan(request)
            with self._sharing(LoadWeights(prepared.resolved.request, self._decided)):
                self._load(plan)

    def _load(self, plan: ManagerPlan) -> None:
        with self._weights.in_use() as manager, manager.execute(plan):
            self.backend.synchronize()

    def configure(self, residency: Residency) -> None:
        """Hold weights in another way from the next request on.

        Weights in memory are moved rather than read again, if there is room. Raises ResidencyError
        if the residency contradicts itself or the model.
        """
        self._require_open()
        right = "configure takes a Residency, such as Residency('fused')"
        _require(residency, Residency, ResidencyError(right))
        with self._one_at_a_time:
            self._restart()
            self._weights.manager.configure(named(residency))
            self._wanted = residency
            self._decision = None
            with self._sharing(HoldWeights(residency)):
                pass

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Those that make each video, in the order of ranks."""
        return self._member.devices or (self.backend.device,)

    @property
    def decision(self) -> Decision | None:
        """The planner's decision by which weights are held now; None unless in mode `auto`."""
        return self._decision

    def forget_prompts(self) -> None:
        """Clear the cache of encoded prompts, for measurements."""
        with self._one_at_a_time:
            self._forget_contexts()
            self._restart()
            with self._sharing(ForgetPrompts()):
                pass

    def residency(self) -> list[Row]:
        """Where every byte of weights is now."""
        return self._weights.manager.residency()

    def close(self) -> None:
        """Free all memory, once the last video is written. The engine cannot be used afterwards."""
        with self._one_at_a_time:
            self._closed = True
            self._member.close()
            self._weights.manager.close()
            if self._last_written is not None:
                self._last_written.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self, request: Request) -> PreparedRequest:
        """Resolve a request as far as possible without weights."""
        return self._plan(request)[0]

    def follow(self, order: EngineOrder) -> Dump | None:
        """Carry out what the leader of the group does, too. Returns the trace of a video."""
        with self._one_at_a_time, torch.inference_mode():
            try:
                return self._follow(order)
            except BaseException as error:
                self._forget_contexts()
                if not isinstance(error, Cancelled):  # then the group's connections end
                    self._mesh, self._execution = None, self._new_execution()
                raise

    def _follow(self, order: EngineOrder) -> Dump | None:
        match order:
            case MakeVideo(request):
                if order.cheaper:
                    self._execution = self._new_execution()
                trace = Trace(self.backend, TraceOptions(order.level))
                outputs = Outputs(None, None, keep_frames=False)
                reporter = Reporter(agree=self._member.agree)
                made = self._generate(request, None, outputs, reporter, trace, order)
                return perf_dump(made.trace, {})
            case LoadWeights(request):
                self._load(self._plan(request, order)[1])
            case HoldWeights(residency):
                self._weights.manager.configure(named(residency))
                self._wanted = residency
            case ForgetPrompts():
                self._forget_contexts()
        return None

    def _plan(
        self, request: Request, order: MakeVideo | LoadWeights | None = None
    ) -> tuple[PreparedRequest, ManagerPlan]:
        """A prepared request, and the plan of its weights. order: the leader's, which decided."""
        self.source.check_unchanged()
        prepared = self._resolver.prepare(request)
        decided = None if order is None else order.residency
        if order is None and self._wanted.mode == AUTO:
            self._decision = self._planner.decide(prepared.resolved, self._wanted)
            self._planner.adopt(self._wanted, self._decision)
            decided = self._decision.residency
        if decided is not None and decided != self._weights.manager.wanted:
            self._weights.manager.configure(decided)
        resolved = prepared.resolved
        return prepared, self._weights.manager.plan(resolved.weight_phases, resolved.weights.lent)

    def _order(self, resolved: ResolvedRequest, trace: Trace) -> MakeVideo:
        return MakeVideo(
            resolved.request,
            self._decided,
            self._layouts(resolved),
            trace.options.level,
            self._cheaper,
            self._planner.exchange_shares(resolved, self._wanted) if self._grouped else {},
        )

    @property
    def _grouped(self) -> bool:
        """Whether there are other ranks, for which this one decides."""
        return self._member.size > 1 and not isinstance(self._member, Alone)

    def _notices_of_bits(self, resolved: ResolvedRequest, order: MakeVideo) -> tuple[Notice, ...]:
        if self._member.rank != 0 or not self._grouped:
            return ()
        config = TransformerConfig.from_header(self.source.components["transformer"].config)
        return notices_of_bits(self.backend, config, self._dtype, resolved, order.layouts)

    @property
    def _decided(self) -> Residency | None:
        """What the planner decided, for followers."""
        return None if self._decision is None else self._decision.residency

    @contextmanager
    def _sharing(self, order: EngineOrder) -> Iterator[SharedOrder]:
        """Have all ranks of the group carry out an order."""
        try:
            with self._member.share(order) as shared:
                yield shared
        except BaseException:
            if self._member.size > 1:
                self._forget_contexts()  # or ranks could differ in what they encode
            raise

    def _forget_contexts(self) -> None:
        self._contexts = Cache(CACHED_PROMPTS)

    def _restart(self) -> None:
        """Open the backend again, as all ranks do, if the group has lost one."""
        if not self._member.restart():
            return
        self._weights.manager.close()
        self.backend = open_backend(self.backend.device, self._member)
        self._weights = ModelWeights(
            self.source,
            self.backend,
            self._dtype,
            self._loras.adapter,
            self._decided or named(self._wanted),
        )
        self._execution = self._new_execution()
        self._forget_contexts()

    def _writer(
        self, path: Path | None, reporter: Reporter
    ) -> AbstractContextManager[BackgroundWriter | None]:
        if path is None:
            return nullcontext()
        return BackgroundWriter(path, reporter.check, self.backend.now, self._last_written)

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError("the engine is closed; open another")

    def _next_cheaper(self) -> bool:
        """After running out of memory: restrict the next plan. Returns whether that is possible."""
        if self._decision is None:
            return False
        self._planner.ran_out(self._decision)
        self._decision = None
        self._execution = self._new_execution()  # without graphs yet
        self._cheaper = True
        return True

    def _new_execution(self) -> Execution:
        transformer = self.source.components["transformer"].parameters * self._dtype.itemsize
        return execution(self.backend.device, self._kernels, transformer)

    def _open_model(self, manager: DeviceManager) -> OpenModel:
        if self._member.mesh is not self._mesh:
            self._mesh, self._execution = self._member.mesh, self._new_execution()
        return OpenModel(
            manager=manager,
            device=self.backend.device,
            dtype=self._dtype,
            latent_channels=self.source.components["video_vae"].config["latent_channels"],
            contexts=self._contexts,
            rotary=self._rotary,
            previewers=self._previewers,
            run_blocks=self._execution.blocks,
            calls=self._execution.calls,
            decoders=self._execution.decoders,
            mesh=self._member.mesh,
        )

    def _layouts(self, resolved: ResolvedRequest) -> tuple[Layout, ...]:
        """How each phase is shared out over devices.

        By prediction, where one process decides for all. Other CPUs than those of mode `auto` would
        be measured for it alone.
        """
        if self._member.size == 1:
            return (ONE_RANK,) * len(resolved.phases)
        if self._grouped and self._decision is not None:
            return self._decision.layouts
        if self._grouped and not self.backend.unified:
            return self._planner.layouts(resolved)
        config = self.source.components["transformer"].config
        heads = config["num_attention_heads"], config["audio_num_attention_heads"]
        layout = default_layout(self._parallel, self._member.size, heads)
        return (layout,) * len(resolved.phases)


@dataclass(frozen=True, slots=True)
class OpenAlike:
    """Opens the engine of a follower, like the leader's."""

    open_source: Callable[[], ModelSource]
    dtype: torch.dtype
    residency: Residency
    kernels: Kernels
    parallel: Parallel

    def __call__(self, member: Member, device: torch.device) -> Engine:
        return Engine(
            self.open_source(),
            open_backend(device, member),
            self.dtype,
            self.residency,
            kernels=self.kernels,
            member=member,
            parallel=self.parallel,
        )


def _require(given: object, kind: type, otherwise: EntracteError) -> None:
    """Raise the error unless `given` has the right type, for callers without a type checker."""
    if not isinstance(given, kind):
        raise otherwise


def _paths(given: str | Path | tuple[str | Path, ...] | None) -> tuple[Path, ...]:
    if given is None:
        return ()
    return tuple(map(Path, given)) if isinstance(given, tuple) else (Path(given),)


def _path_and_strength(given: Any) -> tuple[Path, float] | None:
    if given is None:
        return None
    path, strength = given if isinstance(given, tuple) else (given, 1.0)
    return Path(path), float(strength)
