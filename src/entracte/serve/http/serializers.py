"""Jobs and workers as clients see them, without paths and without other keys' videos."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.fields import FieldInfo

from entracte.checkpoints.model_header import ModelHeader
from entracte.config.serve import ServeSettings
from entracte.recipes import RECIPES, Recipe
from entracte.request_fields import (
    MAX_FRAMES,
    MAX_SIDE,
    PARTS,
    Offer,
    http_name,
    offer_of,
    value_schemas,
)
from entracte.serve.fields import VideoFields
from entracte.serve.jobs.job import Job
from entracte.serve.keys import Key
from entracte.serve.queue_view import QueueSnapshot, remaining
from entracte.serve.submission import Submission, default_fields, render_size
from entracte.serve.workers.state import WorkerSnapshot
from entracte.stages import stages_of

from .schemas import (
    ChoiceView,
    EngineStatus,
    EngineView,
    Estimate,
    FieldList,
    FieldView,
    ImagePlace,
    LimitsView,
    MemoryView,
    QueueView,
    StageList,
    StageView,
    Video,
    VideoError,
    VideoWarning,
    WorkerView,
)


def video_view(job: Job, queue: QueueSnapshot) -> Video:
    settings = job.settings
    place = queue.places.get(job.id)
    eta = None if place is None else place.eta_s
    if job.status == "in_progress":
        eta = remaining(job, time.time())
    width, height = (int(pixels) for pixels in job.size.split("x"))
    error = None
    if job.error_code is not None:
        error = VideoError(code=job.error_code, message=job.error_message or "")
    return Video(
        id=job.id,
        model=job.model,
        status=job.status,
        progress=job.progress,
        created_at=int(job.created_at),
        started_at=_whole(job.started_at),
        completed_at=_whole(job.completed_at),
        expires_at=_whole(job.expires_at),
        size=job.size,
        seconds=job.seconds,
        prompt=job.prompt,
        error=error,
        queue_position=place.position if place is not None and job.status == "queued" else None,
        eta_s=None if job.ended else eta,
        stage=None if job.ended else job.stage,
        step=None if job.ended else job.step,
        steps=None if job.ended else job.steps,
        stage_durations=job.stage_durations,
        peak_memory_mb=job.peak_memory_mb,
        num_frames=settings["num_frames"],
        fps=settings["fps"],
        width=width,
        height=height,
        render_size=_size(render_size(settings)),
        seed=settings["seed"],
        settings={"model": job.model, "prompt": job.prompt, **settings},
        images=[ImagePlace(**image) for image in job.images],
        estimated_s=job.estimated_s,
        bytes=job.bytes,
        warnings=[VideoWarning(**warning) for warning in job.warnings],
    )


def estimate_view(
    submission: Submission, estimated_s: float | None, queue: QueueSnapshot
) -> Estimate:
    width, height = (int(pixels) for pixels in submission.size.split("x"))
    return Estimate(
        size=submission.size,
        seconds=submission.seconds,
        num_frames=submission.settings["num_frames"],
        fps=submission.settings["fps"],
        width=width,
        height=height,
        render_size=_size(submission.render_size),
        estimated_s=estimated_s,
        queue_s=queue.seconds,
    )


def engine_status(workers: Sequence[WorkerSnapshot], draining: bool) -> EngineStatus:
    states = {each.state for each in workers}
    if draining:
        return "draining"
    if states & {"ready", "busy"}:
        return "ready"
    return "starting" if states & {"starting", "warming", "restarting"} else "down"


def engine_view(
    workers: Sequence[WorkerSnapshot],
    queue: QueueSnapshot,
    settings: ServeSettings,
    model: ModelHeader,
    draining: bool,
    key: Key,
) -> EngineView:
    """The engine as a key sees it: operators see all, others the state and their own."""
    return EngineView(
        status=engine_status(workers, draining),
        workers=[_worker_view(each, key) for each in workers],
        queue=QueueView(
            queued=queue.queued if key.operator else queue.queued_of.get(key.id, 0),
            running=queue.running if key.operator else queue.running_of.get(key.id, 0),
            limit=settings.max_queued,
            seconds=queue.seconds,
        ),
        limits=LimitsView(
            max_prompt_chars=settings.max_prompt_chars,
            max_images=settings.max_images,
            max_image_bytes=settings.max_image_bytes,
            max_pixels_frames=settings.max_pixels_frames,
            max_steps=settings.max_steps,
            size_multiple=RECIPES[settings.pipeline].size_multiple,
            max_side=MAX_SIDE,
            max_frames=MAX_FRAMES,
        ),
        defaults=default_fields(settings, model),
        examples=list(model.examples),
        auth=settings.auth,
    )


def stage_list() -> StageList:
    """The stages that are reported, in the order of the longest pipeline."""
    of_pipeline = {
        name: stages_of((phase.name for phase in recipe.phases), recipe.gives)
        for name, recipe in RECIPES.items()
    }
    return StageList(
        data=[
            StageView(
                id=stage.name,
                label=stage.label,
                act=stage.act,
                pipelines=[name for name, stages in of_pipeline.items() if stage in stages],
            )
            for stage in stages_of()
            if stage.label
        ]
    )


def field_list(settings: ServeSettings) -> FieldList:
    """The fields of a request, in the order of their declaration."""
    schemas = value_schemas(VideoFields)
    schemas["num_inference_steps"]["maximum"] = settings.max_steps
    return FieldList(
        data=[
            _field_view(http_name(name), field, schemas[http_name(name)])
            for name, field in VideoFields.model_fields.items()
        ]
    )


def _field_view(name: str, field: FieldInfo, schema: Mapping[str, Any]) -> FieldView:
    offer = offer_of(field) or Offer()
    part = PARTS.get(name)
    return FieldView(
        id=name,
        type=schema["type"],
        label=offer.label or None,
        description=field.description or "",
        hint=offer.hint,
        group=offer.group,
        stream=None if part is None else part.stream,
        minimum=schema.get("minimum"),
        maximum=schema.get("maximum"),
        step=offer.step,
        choices=_pipelines() if name == "pipeline" else [],
    )


def _pipelines() -> list[ChoiceView]:
    return [
        ChoiceView(
            value=recipe.name,
            label=recipe.label,
            description=recipe.description,
            excludes=[] if recipe.guided else ["num_inference_steps"],
        )
        for recipe in served_recipes().values()
    ]


def served_recipes() -> dict[str, Recipe]:
    """The recipes that clients can ask for: sounds and videos cannot be sent."""
    return {name: recipe for name, recipe in RECIPES.items() if not recipe.gives}


def _worker_view(worker: WorkerSnapshot, key: Key) -> WorkerView:
    memory = worker.memory if key.operator else None
    own = worker.owner == key.id
    return WorkerView(
        name=worker.name,
        device=worker.device,
        state=worker.state,
        video_id=worker.video_id if own else None,
        stage=worker.stage if own or key.operator else None,
        device_total_bytes=None if memory is None else memory.device_total,
        device_used_bytes=None if memory is None else memory.device_used,
        host_used_bytes=None if memory is None else memory.host_used,
        memory=[]
        if memory is None
        else [
            MemoryView(component=r.component, where=r.where, content=r.content, bytes=r.bytes)
            for r in memory.rows
        ],
        mode=None if memory is None else memory.mode,
        plan=None if memory is None else memory.plan,
    )


def _size(pixels: tuple[int, int]) -> str:
    return f"{pixels[0]}x{pixels[1]}"


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
