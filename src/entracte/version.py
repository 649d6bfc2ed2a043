"""The version of the package, which hatch reads too."""

__version__ = "0.1.0"
