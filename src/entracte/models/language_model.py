"""What every version's text encoder is to its callers."""

from torch import Tensor

from .calls import Call, call_plainly
from .component import Component


class LanguageModel(Component):
    """Maps the token ids of one prompt to the hidden states of every layer.

    width: of a state. layers: whose inputs are the states; the last state is what the last gives.
    """

    width: int
    layers: int

    def forward(self, tokens: Tensor, call: Call = call_plainly) -> Tensor:
        """[tokens] int64 to [tokens, width, layers + 1]. call: runs each layer."""
        raise NotImplementedError
