"""The base class of components."""

from torch import nn


class Component(nn.Module):
    """A named module with weights, built without storage and then filled from files."""

    def restore_buffers(self) -> None:
        """Rebuild the buffers that no file holds; called before the weights are in place."""
