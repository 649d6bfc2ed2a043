"""How the full-size model would be held on a machine, planned without its files."""

from collections.abc import Sequence

from entracte.errors import BudgetError, RequestError
from entracte.machine.hardware import Hardware
from entracte.recipes import RECIPES
from entracte.residency import AUTO, Residency, WeightPhase

from .calibration import Calibration
from .costs import Costs, costs
from .decision import Decision, decide
from .group import GroupGain, compare
from .limits import limits_of
from .model_profile import DISTILLED, ModelFigures, published
from .prediction import Prediction
from .transformer_work import TransformerMeter
from .workload import Workload, recipe_weights

FULL_SIZE = "ltx-2.3"

# A typical video.
HEIGHT, WIDTH = 512, 768


def typical_costs(hardware: Hardware) -> Costs:
    """What a typical video costs."""
    model = published(FULL_SIZE)
    load = _typical_load(model, hardware)
    phases = weight_phases("two-stage", load, model)
    return costs(model, load, phases, hardware, Calibration(), TransformerMeter.of(model))


def forecast(hardware: Hardware, c: Costs | None = None) -> Prediction:
    """The best plan for a typical video, whose costs may be given.

    Raises BudgetError, naming the smallest, if none fits.
    """
    wanted = Residency(AUTO)
    return decide(
        c or typical_costs(hardware), wanted, limits_of(hardware, wanted)
    ).chosen.prediction


def typical_gain(hardware: Hardware) -> GroupGain | None:
    """What several devices gain over one for a typical video; None if no plan fits them."""

    def plan(machine: Hardware) -> Decision:
        wanted = Residency(AUTO)
        return decide(typical_costs(machine), wanted, limits_of(machine, wanted))

    try:
        decision = plan(hardware)
    except BudgetError:
        return None
    return compare(decision, hardware, _typical_load(published(FULL_SIZE), hardware), plan)


def _typical_load(model: ModelFigures, hardware: Hardware) -> Workload:
    return Workload.of_sizes(
        layers=model.transformer.layers,
        height=HEIGHT,
        width=WIDTH,
        on_gpu=not hardware.unified,
        defaults=model.version.defaults,
    )


def weight_phases(pipeline: str, load: Workload, model: ModelFigures) -> Sequence[WeightPhase]:
    """The transformer's phases; raises RequestError without the LoRA that one of them merges."""
    recipe = RECIPES[pipeline]
    if recipe.uses_distilled_lora and DISTILLED not in model.adapters:
        raise RequestError(
            f"the {pipeline} pipeline needs the distilled LoRA: put it into the model's folder"
        )
    return [
        WeightPhase(weights, work.evaluations)
        for weights, work in zip(recipe_weights(recipe).transformer, load.phases, strict=True)
    ]
