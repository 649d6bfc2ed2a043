"""Response bodies. Descriptions go into the OpenAPI document."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    message: str = Field(description="What is wrong, for humans.")
    type: str
    param: str | None = Field(description="The field that is wrong.")
    code: str | None = Field(description="What is wrong, for programs.")


class ErrorBody(BaseModel):
    error: ErrorDetail


class VideoError(BaseModel):
    code: str
    message: str


class VideoWarning(BaseModel):
    """How a video may differ from its request."""

    lora: str = Field(description="The LoRA concerned.")
    message: str
    keys: list[str] = Field(description="Keys of the LoRA's file, the first hundred.")


class ImagePlace(BaseModel):
    frame: int
    strength: float
    crf: int | None


class Video(BaseModel):
    """A video, from request to completion."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(ge=0, le=100, description="Percentage of the steps of all stages.")
    created_at: int
    started_at: int | None
    completed_at: int | None = Field(description="When the job finished, successfully or not.")
    expires_at: int | None = Field(description="When it will be deleted.")
    size: str = Field(description="Of the file, WxH.")
    seconds: str
    prompt: str
    remixed_from_video_id: str | None = None
    error: VideoError | None
    queue_position: int | None = Field(description="1 is next; null once it has started.")
    eta_s: float | None = Field(description="Seconds until it is ready.")
    stage: str | None
    step: int | None = Field(
        description="Step of the current stage; null once the video has finished."
    )
    steps: int | None
    stage_durations: dict[str, float]
    peak_memory_mb: float | None
    num_frames: int
    fps: float
    width: int
    height: int
    render_size: str = Field(description="Rendered size, WxH; the file is its centre.")
    seed: int
    settings: dict[str, Any] = Field(description="The fields that request the same video again.")
    images: list[ImagePlace]
    estimated_s: float | None = Field(description="Predicted duration in seconds.")
    bytes: int | None
    warnings: list[VideoWarning] = Field(description="Known once the video is ready.")


class VideoList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedVideo(BaseModel):
    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class Estimate(BaseModel):
    object: Literal["video.estimate"] = "video.estimate"
    size: str
    seconds: str
    num_frames: int
    fps: float
    width: int
    height: int
    render_size: str
    estimated_s: float | None = Field(description="null while no worker can estimate it.")
    queue_s: float = Field(description="Seconds until it would start.")


class MemoryView(BaseModel):
    component: str
    where: str
    content: str
    bytes: int


class WorkerView(BaseModel):
    name: str
    device: str
    state: str
    video_id: str | None
    stage: str | None
    device_total_bytes: int | None
    device_used_bytes: int | None
    host_used_bytes: int | None
    memory: list[MemoryView]
    mode: str | None
    plan: str | None


class QueueView(BaseModel):
    queued: int = Field(description="Of all keys for an operator, else of your key.")
    running: int
    limit: int
    seconds: float = Field(description="Until a video submitted now would start.")


class LimitsView(BaseModel):
    max_prompt_chars: int
    max_images: int
    max_image_bytes: int
    max_pixels_frames: int
    max_steps: int
    size_multiple: int
    max_side: int
    max_frames: int


EngineStatus = Literal["starting", "ready", "draining", "down"]


class EngineView(BaseModel):
    object: Literal["engine"] = "engine"
    status: EngineStatus
    workers: list[WorkerView]
    queue: QueueView
    limits: LimitsView
    defaults: dict[str, Any]
    examples: list[str]
    auth: Literal["keys", "off"]


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "entracte"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Lora(BaseModel):
    id: str
    object: Literal["lora"] = "lora"
    bytes: int


class LoraList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Lora]


class ChoiceView(BaseModel):
    """A value that a field can have."""

    value: str
    label: str = Field(description="The value, for people.")
    description: str
    excludes: list[str] = Field(description="Fields that must be left out with it.")


class FieldView(BaseModel):
    """A field of a request, for those who build a form of it."""

    id: str = Field(description="Its name in a request.")
    object: Literal["field"] = "field"
    type: Literal["string", "integer", "number", "boolean", "array"]
    label: str | None = Field(description="For a form's control; null: it needs one of its own.")
    description: str
    hint: bool = Field(description="Whether the description belongs below the control.")
    group: str
    stream: Literal["video", "audio"] | None = Field(
        description="Of guidance: what it guides. Two fields of one label belong side by side."
    )
    minimum: float | None
    maximum: float | None
    step: float | None
    choices: list[ChoiceView]


class FieldList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FieldView]


class StageView(BaseModel):
    """A stage of the work on a video."""

    id: str = Field(description="As in a video's `stage`.")
    object: Literal["stage"] = "stage"
    label: str = Field(description="What happens in it, for people.")
    act: str = Field(description="The part of the work that it belongs to, for people.")
    pipelines: list[str] = Field(description="Those that have it.")


class StageList(BaseModel):
    object: Literal["list"] = "list"
    data: list[StageView]


class Health(BaseModel):
    status: str


class Session(BaseModel):
    needed: bool
    signed_in: bool
