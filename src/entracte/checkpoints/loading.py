"""Located tensors to components that the device manager can hold."""

from collections.abc import Mapping

import torch
from torch import Tensor

from entracte.errors import CheckpointError
from entracte.models.component import Component
from entracte.models.formats import Float8, compute_from_stored
from entracte.models.registry import ModelVersion
from entracte.residency import ComponentSpec, Stored, TensorSpec

from .bounds import check_config
from .recognise import TAKE_BFLOAT16
from .sources import ComponentSource


def build_component(source: ComponentSource, version: ModelVersion) -> Component:
    """A component without storage, checked against its source, name by name and shape by shape.

    Raises CheckpointError where a tensor is missing, left over, of another shape, or of integers,
    and where the config describes no such component.
    """
    if source.name != "text_encoder":
        check_config(source)
    found = {name: located.info.shape for name, located in source.tensors.items()}
    with torch.device("meta"):
        try:
            module = version.builders[source.name](source.config, found)
        except CheckpointError:
            raise
        except KeyError as error:
            raise CheckpointError(f"{source.name}: its config has no {error}") from None
        except Exception as error:  # what a wrong value causes in torch, diffusers or transformers
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            raise CheckpointError(f"{source.name}: its config is wrong ({words})") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing, unknown = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing:
        raise CheckpointError(
            f"{source.name}: {len(missing):,} of its {len(wanted):,} tensors are not in the "
            f"checkpoint, the first {min(missing)}"
        )
    if unknown:
        raise CheckpointError(
            f"{source.name}: the checkpoint has {len(unknown):,} tensors that LTX-{version.name} "
            f"does not have, the first {_in_file(source, min(unknown))}"
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(
                f"{source.name}: {_in_file(source, name)} is {list(found[name])}; by the config it "
                f"is {list(shape)}"
            )
        dtype = source.tensors[name].info.dtype
        if not dtype.is_floating_point or dtype is torch.float8_e8m0fnu:
            raise CheckpointError(
                f"{source.name}: {_in_file(source, name)} is {str(dtype).removeprefix('torch.')}, "
                f"quantised without the scales that it needs; {TAKE_BFLOAT16}"
            )
    return module


def _in_file(source: ComponentSource, name: str) -> str:
    located = source.tensors[name]
    return f"{located.key} of {located.file.path}"


def stored_formats(source: ComponentSource, version: ModelVersion) -> Mapping[str, Float8]:
    """The formats of parameters that stay as they are stored until they arrive: those of linears in
    blocks. All else is small, or comes in one piece, and takes the model's dtype as it is read.
    """
    blocks = version.blocks.get(source.name)
    return {
        name: Float8(located.info.dtype)
        for name, located in source.tensors.items()
        if located.info.dtype.itemsize == 1
        and len(located.info.shape) == 2
        and name.endswith(".weight")
        and blocks is not None
        and name.startswith(f"{blocks}.")
    }


class FileSource:
    """A component's tensors in files, as a weight source for the device manager.

    dtype: the model's. formats: of the parameters that stay as they are stored.
    """

    def __init__(self, source: ComponentSource, version: ModelVersion, dtype: torch.dtype) -> None:
        self._tensors = source.tensors
        self.formats = stored_formats(source, version)
        dtype = version.dtype_of(source.name, dtype)
        specs: dict[str, TensorSpec] = {}
        for name, located in source.tensors.items():
            shape, stored = located.info.shape, None
            if name in self.formats:
                stored = Stored(self.formats[name], {"": TensorSpec(located.info.dtype, shape)})
            specs[name] = TensorSpec(dtype, shape, stored=stored)
        self.specs: Mapping[str, TensorSpec] = specs

    def read(self, name: str, out: Tensor) -> None:
        """Read a tensor, as the dtype of `out`."""
        self._tensors[name].read(out)


def component_spec(
    source: ComponentSource, version: ModelVersion, device: torch.device, dtype: torch.dtype
) -> ComponentSpec:
    """A component as the device manager wants it; no weight is read. dtype: the model's."""
    files = FileSource(source, version, dtype)

    def build_stored() -> Component:
        module = build_component(source, version)
        compute_from_stored(module, files.formats)
        return prepare_module(module, device)

    return ComponentSpec(
        source.name,
        lambda: prepare_module(build_component(source, version), device),
        {"base": files},
        version.blocks.get(source.name),
        build_stored if files.formats else None,
    )


def prepare_module(module: Component, device: torch.device) -> Component:
    """Rebuild what no file holds, on the device, for a module that is still without weights."""
    module.restore_buffers()
    held = module.state_dict().keys()
    for name, buffer in module.named_buffers():
        if name not in held:
            if buffer.is_meta:
                raise RuntimeError(f"{name} was built but never filled")
            buffer.data = buffer.data.to(device)
    return module
