"""The engine: an open model that makes videos, with weights where the planner wants them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self, Unpack, get_args, overload

import torch

from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.sources import ModelSource, Precision
from entracte.errors import ClosedError, EntracteError, OutOfMemory, RequestError, ResidencyError
from entracte.files import require_writable
from entracte.group import ALONE, Leader, Member, SharedOrder
from entracte.machine.hardware import Hardware
from entracte.machine.torch_device import pick_device, pick_devices
from entracte.media.background_writer import BackgroundWriter
from entracte.media.output import check_output
from entracte.models.kernels import Kernels
from entracte.notices import Notice
from entracte.parallel import Parallel
from entracte.pipeline.bits import notices_of_bits
from entracte.pipeline.following import OpenFollowing
from entracte.pipeline.open_model import OpenModel
from entracte.pipeline.orders import EngineOrder, ForgetPrompts, HoldWeights, LoadWeights, MakeVideo
from entracte.pipeline.outputs import Outputs
from entracte.pipeline.preview import PreviewCallback
from entracte.pipeline.resolved import PreparedRequest
from entracte.planner.decision import Decision
from entracte.planner.model_planner import ModelPlanner, named
from entracte.planner.prediction import Prediction
from entracte.progress import ProgressCallback, Reporter
from entracte.recipes import prefers_distilled
from entracte.request import Request, RequestOptions
from entracte.residency import (
    AUTO,
    Auto,
    Backend,
    ManagerPlan,
    Mode,
    Residency,
    Row,
    device_errors,
    open_backend,
)
from entracte.result import Result, VideoFile
from entracte.shorthand import as_request, as_residency
from entracte.stages import MUX, VALIDATE
from entracte.trace.dump import Dump
from entracte.trace.trace import Trace, TraceOptions

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


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
        wanted = residency or Residency(AUTO)
        self._member = member
        self._model = OpenModel(source, backend, dtype, named(wanted), kernels, member)
        adapters, graphs = self._model.loras.adapter, self._model.graphs
        self._planner = ModelPlanner(
            source, dtype, adapters, backend, wanted, hardware, graphs, parallel
        )
        self._one_at_a_time = threading.RLock()
        self._closed = False
        self._last_written: BackgroundWriter | None = None
        self._cheaper = False  # than the last request, which ran out of memory

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
        mode: Mode | Auto | None = None,
        device_memory: int | str | None = None,
        host_memory: int | str | None = None,
        backend: Backend | None = None,
        hardware: Hardware | None = None,
        kernels: Kernels = "auto",
        member: Member | None = None,
        precision: Precision = "exact",
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
            speed is unknown). mode, device_memory, host_memory: short for one with these, sizes
            in bytes or as "24GiB".
        backend: a custom backend instead of the device's own, such as a simulated one.
        hardware: the machine for the planner (default: probed when needed).
        kernels: on a GPU "auto" (fused kernels, from captured graphs where that pays), "fused"
            (without graphs) or "plain" (torch's operators).
        member: this process's place in a group that was started elsewhere, instead of `devices`.
        precision: "exact", or "fp8": approximate, the transformer's blocks multiply in float8, on
            GPUs of compute capability 8.9 and up (and slowly on a CPU).

        Raises CheckpointError if files are missing, damaged, or of another model, and
        ResidencyError if the residency contradicts itself or the model.
        """
        if dtype not in DTYPES:
            raise RequestError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        if precision not in get_args(Precision):
            raise RequestError(
                f"precision {precision!r} is not one of {', '.join(get_args(Precision))}"
            )
        if precision == "fp8" and dtype != "bfloat16":
            raise RequestError(f"precision fp8 goes with dtype bfloat16, not {dtype}")
        open_source = partial(
            open_model,
            None if model is None else str(model),
            ModelPaths.of(checkpoint_path, gemma_root, spatial_upsampler_path, distilled_lora),
            distilled=prefers_distilled(pipeline),
            precision=precision,
        )
        if residency is None and backend is not None and hardware is None:
            residency = Residency("resident")
        residency = as_residency(residency, mode, device_memory, host_memory)
        how = DTYPES[dtype], residency, hardware, kernels
        if len(devices) > 1 and parallel != "off":
            return cls.lead(open_source, pick_devices(devices), *how, parallel)
        source, member = open_source(), member or ALONE
        backend = backend or open_backend(pick_device(devices[0] if devices else device), member)
        return cls(source, backend, *how, member, parallel)

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
        alike = OpenFollowing(open_source, dtype, named(residency or Residency(AUTO)), kernels)
        with Leader.opening(devices, alike) as leader:
            backend = open_backend(devices[0], leader)
            return cls(source, backend, dtype, residency, hardware, kernels, leader, parallel)

    @property
    def source(self) -> ModelSource:
        """The model's files."""
        return self._model.source

    @property
    def backend(self) -> Backend:
        """What holds this process's weights: the first of several devices."""
        return self._model.backend

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Those that make each video, in the order of ranks."""
        return self._member.devices or (self.backend.device,)

    @property
    def decision(self) -> Decision | None:
        """The planner's decision by which weights are held now; None unless in mode `auto`."""
        return self._planner.decision

    @overload
    def generate(
        self,
        request: Request | str,
        *,
        output_path: str | Path | None = None,
        latents_path: str | Path | None = None,
        progress: ProgressCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
        keep_frames: bool = True,
        trace: TraceOptions | None = None,
        preview: PreviewCallback | None = None,
        metadata: bool = True,
        wait: bool = True,
        **options: Unpack[RequestOptions],
    ) -> Result: ...

    @overload
    def generate(
        self,
        request: list[Request] | list[str] | tuple[Request | str, ...],
        *,
        progress: ProgressCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
        keep_frames: bool = True,
        **options: Unpack[RequestOptions],
    ) -> list[Result]: ...

    def generate(
        self,
        request: Request | str | list[Request] | list[str] | tuple[Request | str, ...],
        *,
        output_path: str | Path | None = None,
        latents_path: str | Path | None = None,
        progress: ProgressCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
        keep_frames: bool = True,
        trace: TraceOptions | None = None,
        preview: PreviewCallback | None = None,
        metadata: bool = True,
        wait: bool = True,
        **options: Unpack[RequestOptions],
    ) -> Result | list[Result]:
        """Make a video with sound, or one for each of a list.

        request: a `Request`, or a prompt, with the request's other fields as `options`.
        output_path: an .mp4 file, or an existing folder for PNG frames and a WAV file.
        latents_path: a safetensors file for every phase's latents.
        progress: called at every stage and step. should_stop: called there; True stops the run.
        keep_frames: whether the result carries the frames, 3 bytes a pixel.
        trace: what the result's trace records. preview: called with a small picture at every step.
        metadata: whether an mp4 says what it was made from: prompt, seed and settings.
        wait: until the output is written. Otherwise the call returns as soon as the device is free.
            What then is not encoded yet waits in host memory for a thread, which also calls
            `should_stop`, while the next request computes. Only one video is being written at a
            time: the next one waits before its picture is decoded. `Result.wait` raises what fails
            in the thread.

        Raises RequestError, CheckpointError, MediaError or BudgetError before any weight is read if
        the request cannot be carried out; MediaError if the output cannot be written; NotFinite
        after a stage with NaN or infinite results; OutOfMemory; Cancelled. After a DeviceFault the
        next call loads the weights from the files again.
        """
        self._require_open()
        if isinstance(request, list | tuple):
            if output_path is not None or latents_path is not None or not wait:
                raise RequestError("of a list, save each result; outputs are for one request")
            watched = partial(self.generate, progress=progress, should_stop=should_stop)
            given = [as_request(each, options if isinstance(each, str) else {}) for each in request]
            return [watched(each, keep_frames=keep_frames) for each in given]
        asked = as_request(request, options)
        output = None if output_path is None else Path(output_path)
        latents = None if latents_path is None else Path(latents_path)

        def attempt() -> Result:
            reporter = Reporter(progress, should_stop, self._member.agree)
            record = Trace(self.backend, trace)
            with self._writer(output, reporter) as video:
                outputs = Outputs(video, latents, keep_frames, preview, metadata)
                result = self._generate(asked, output, outputs, reporter, record)
                if video is None:
                    return result
                reporter.stage(MUX.name)
                self._last_written = video
            return replace(result, file=VideoFile(video, self.backend.now()))

        with self._one_at_a_time, torch.inference_mode():
            result = self._retried(attempt)
        return result.wait() if wait else result

    def _generate(
        self,
        request: Request,
        output_path: Path | None,
        outputs: Outputs,
        reporter: Reporter,
        trace: Trace,
    ) -> Result:
        with trace.stage(VALIDATE.name, VALIDATE.on_host), device_errors("preparing"):
            if output_path is not None:
                check_output(output_path)
            if outputs.latents_path is not None:
                require_writable(outputs.latents_path)
            prepared, plan = self._plan(request)
        resolved = prepared.resolved
        layouts = self._planner.layouts(resolved, predicted=self._member.leads)
        notices = resolved.weights.notices + prepared.given.notices
        if self.source.precision == "fp8":
            notices += (Notice(Path("precision fp8"), "approximate: products are in float8"),)
            trace.count("approximate_products_in_float8", 1)
        shares = {}
        if self._member.leads:
            dtype = self._model.dtype
            notices += notices_of_bits(self.backend, dtype, self.source, resolved, layouts)
            shares = self._planner.exchange_shares(resolved)
        trace.exchange_shares = shares
        reporter.begin(resolved.work)
        decided, level = self._planner.decided, trace.options.level
        order = MakeVideo(resolved.request, decided, layouts, level, self._cheaper, shares)
        with self._sharing(order) as shared:
            made = self._model.run(prepared, plan, layouts, trace, reporter, outputs)
        return Result(
            request=resolved.request,
            frames=made.frames,
            audio=made.audio,
            sample_rate=made.sample_rate,
            latents=made.latents,
            trace=trace,
            output_path=output_path,
            decision=self._planner.decision,
            warnings=notices,
            followers=tuple(each for each in shared.reports if isinstance(each, Dump)),
        )

    def plan(self, request: Request) -> Decision:
        """Plan a request like this one, and predict its time and memory.

        Raises what `generate` raises before its first stage.
        """
        with self._one_at_a_time:
            return self._planner.decide(self._model.resolver.prepare(request).resolved)

    def predict(self, request: Request) -> Prediction | None:
        """Predict a request, with weights held as for the last one.

        May be called from any thread, also during another request; None before the first plan.
        Prompts are assumed to be new, and images are not read. Raises RequestError and
        CheckpointError for what the model cannot do, prompts of too many tokens among them.
        """
        resolved = self._model.resolver.resolve(request)
        self._model.resolver.tokens(resolved)  # raises for too many
        return self._planner.predict(resolved)

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
            with self._sharing(LoadWeights(prepared.resolved.request, self._planner.decided)):
                self._model.load(plan)

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
            self._model.manager.configure(named(residency))
            self._planner.want(residency)
            with self._sharing(HoldWeights(named(residency))):
                pass

    def forget_prompts(self) -> None:
        """Clear the cache of encoded prompts, for measurements."""
        with self._one_at_a_time:
            self._model.forget_prompts()
            self._restart()
            with self._sharing(ForgetPrompts()):
                pass

    def residency(self) -> list[Row]:
        """Where every byte of weights is now."""
        return self._model.manager.residency()

    def close(self) -> None:
        """Free all memory, once the last video is written. The engine cannot be used afterwards."""
        with self._one_at_a_time:
            self._closed = True
            self._member.close()
            self._model.close()
            if self._last_written is not None:
                self._last_written.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self, request: Request) -> PreparedRequest:
        """Resolve a request as far as possible without weights."""
        return self._plan(request)[0]

    def _plan(self, request: Request) -> tuple[PreparedRequest, ManagerPlan]:
        """A prepared request, and the plan of its weights; in mode `auto`, after a decision."""
        prepared = self._model.prepare(request)
        self._planner.adopt(prepared.resolved)
        return prepared, self._model.plan(prepared.resolved, self._planner.decided)

    @contextmanager
    def _sharing(self, order: EngineOrder) -> Iterator[SharedOrder]:
        """Have all ranks of the group carry out an order."""
        try:
            with self._member.share(order) as shared:
                yield shared
        except BaseException:
            if self._member.size > 1:
                self._model.forget_prompts()  # ranks could differ in what they have encoded
            raise

    def _restart(self) -> None:
        """Open the backend again, as all ranks do, if the group has lost one."""
        if self._member.restart():
            self._model.reopen(self._planner.decided or named(self._planner.wanted))

    def _retried(self, attempt: Callable[[], Result]) -> Result:
        """The result of an attempt, or where memory runs out, of one with the next cheaper plan."""
        self._restart()
        self._cheaper = False
        try:
            return attempt()
        except OutOfMemory:
            if not self._planner.ran_out():
                raise
        self._cheaper = True
        self._model.forget_graphs()
        self._restart()  # once the error is gone, with what its frames held
        return attempt()

    def _writer(
        self, path: Path | None, reporter: Reporter
    ) -> AbstractContextManager[BackgroundWriter | None]:
        if path is None:
            return nullcontext()
        return BackgroundWriter(path, reporter.check, self.backend.now, self._last_written)

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError("the engine is closed; open another")


def _require(given: object, kind: type, otherwise: EntracteError) -> None:
    """Raise the error unless `given` has the right type, for callers without a type checker."""
    if not isinstance(given, kind):
        raise otherwise
