"""Text to the text encoder's states."""

import torch
from torch import Tensor

from entracte.models.gemma import TextEncoder


def encode_text(encoder: TextEncoder, tokens: Tensor, device: torch.device) -> Tensor:
    """Token ids [tokens] to the states of all layers, [tokens, hidden width, layers + 1]."""
    states: Tensor = encoder(tokens.to(device))
    return states
