"""The text encoder's states to what the transformer attends to."""

from dataclasses import dataclass

from torch import Tensor

from entracte.models.connectors import Connectors


@dataclass(frozen=True, slots=True)
class TextContext:
    """One prompt's contexts: [1, 1024, width of the stream] each."""

    video: Tensor
    audio: Tensor


def connect_text(connectors: Connectors, states: Tensor) -> TextContext:
    """States [tokens, hidden width, layers + 1] to a context for each stream."""
    return TextContext(*connectors(states))
