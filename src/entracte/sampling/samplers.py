"""The samplers, by the names that recipes give them."""

from collections.abc import Mapping
from types import MappingProxyType

from .euler import ancestral_euler, euler, gradient_estimating_euler
from .loop import Sampler
from .res_2s import res_2s

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "euler": Sampler(euler),
        "gradient-estimating-euler": Sampler(gradient_estimating_euler),
        "ancestral-euler": Sampler(ancestral_euler),
        "res-2s": Sampler(res_2s, evaluations_per_step=2, extra_evaluations=1),
    }
)
