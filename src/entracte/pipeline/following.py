"""What a follower does: a leader's orders, carried out on the same model on another device."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from entracte.checkpoints.sources import ModelSource
from entracte.errors import Cancelled
from entracte.group import Member
from entracte.models.kernels import Kernels
from entracte.progress import Reporter
from entracte.residency import Residency, device_errors, open_backend
from entracte.stages import VALIDATE
from entracte.trace.dump import Dump
from entracte.trace.trace import Trace, TraceOptions
from entracte.trace.write_dump import perf_dump

from .open_model import OpenModel
from .orders import EngineOrder, ForgetPrompts, HoldWeights, LoadWeights, MakeVideo
from .outputs import Outputs


@dataclass(frozen=True, slots=True)
class OpenFollowing:
    """Opens the model of a follower like the leader's. Can be pickled."""

    open_source: Callable[[], ModelSource]
    dtype: torch.dtype
    residency: Residency
    kernels: Kernels

    def __call__(self, member: Member, device: torch.device) -> "FollowingModel":
        source, backend = self.open_source(), open_backend(device, member)
        model = OpenModel(source, backend, self.dtype, self.residency, self.kernels, member)
        return FollowingModel(model, member)


class FollowingModel:
    """The open model of a follower; see `Follows`."""

    def __init__(self, model: OpenModel, member: Member) -> None:
        self._model = model
        self._member = member

    def follow(self, order: EngineOrder) -> Dump | None:
        """Carry out an order; returns the trace of a video."""
        with torch.inference_mode():
            try:
                return self._follow(order)
            except BaseException as error:
                self._model.forget_prompts()  # ranks could differ in what they have encoded
                if not isinstance(error, Cancelled):  # the connections end now
                    self._model.forget_graphs()
                raise

    def close(self) -> None:
        self._model.close()

    def _follow(self, order: EngineOrder) -> Dump | None:
        model = self._model
        match order:
            case MakeVideo():
                return self._make(order)
            case LoadWeights():
                resolved = model.prepare(order.request).resolved
                model.load(model.plan(resolved, order.residency))
            case HoldWeights():
                model.manager.configure(order.residency)
            case ForgetPrompts():
                model.forget_prompts()
        return None

    def _make(self, order: MakeVideo) -> Dump:
        model = self._model
        if order.cheaper:
            model.forget_graphs()
        trace = Trace(model.backend, TraceOptions(order.level))
        trace.exchange_shares = order.exchange_shares
        with trace.stage(VALIDATE.name, VALIDATE.on_host), device_errors("preparing"):
            prepared = model.prepare(order.request)
            plan = model.plan(prepared.resolved, order.residency)
        reporter = Reporter(agree=self._member.agree)
        reporter.begin(prepared.resolved.work)
        outputs = Outputs(None, None, keep_frames=False)
        model.run(prepared, plan, order.layouts, trace, reporter, outputs)
        return perf_dump(trace, {})
