"""The engine: its state, and its models, LoRAs, fields and stages."""

import time

from fastapi import APIRouter

from .depends import TheKey, TheService
from .errors import ApiError
from .openapi import errors
from .schemas import EngineView, FieldList, Lora, LoraList, Model, ModelList, StageList
from .serializers import engine_view, field_list, stage_list

router = APIRouter(prefix="/v1")

# The protocol has a date of creation for every model; ours is this process's start.
STARTED = int(time.time())


@router.get(
    "/engine", operation_id="engine", summary="What the engine is doing", responses=errors()
)
def engine(service: TheService, key: TheKey) -> EngineView:
    """Workers with their memory by component, the queue, limits and defaults."""
    draining = service.draining.is_set()
    settings, model = service.settings, service.model
    return engine_view(service.workers(), service.queue.now(), settings, model, draining, key)


@router.get("/models", operation_id="listModels", summary="The models", responses=errors())
def models(service: TheService) -> ModelList:
    """The names of the model."""
    return ModelList(data=[Model(id=name, created=STARTED) for name in service.settings.model_name])


@router.get(
    "/models/{model_id}", operation_id="retrieveModel", summary="A model", responses=errors(404)
)
def model(model_id: str, service: TheService) -> Model:
    """One of them."""
    if model_id not in service.settings.model_name:
        raise ApiError(404, "This model does not exist.", "model_not_found", "model_id")
    return Model(id=model_id, created=STARTED)


@router.get("/loras", operation_id="listLoras", summary="The LoRAs", responses=errors())
def loras(service: TheService) -> LoraList:
    """The LoRAs that a video may use."""
    sizes = service.loras.sizes()
    return LoraList(data=[Lora(id=name, bytes=nbytes) for name, nbytes in sizes.items()])


@router.get("/stages", operation_id="listStages", summary="The stages", responses=errors())
def stages() -> StageList:
    """The values of a video's `stage`, in order, with descriptions."""
    return stage_list()


@router.get("/fields", operation_id="listFields", summary="The fields", responses=errors())
def fields(service: TheService) -> FieldList:
    """The fields of a request for a video: their types, ranges and words, as a form needs them."""
    return field_list(service.settings)
