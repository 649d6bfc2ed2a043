"""Located tensors to components that the device manager can hold."""

from collections.abc import Mapping

import torch
from torch import Tensor

from entracte.errors import CheckpointError
from entracte.models.component import Component
from entracte.models.float8 import Float8Weights
from entracte.models.formats import compute_from_stored
from entracte.models.formats.products import multiplies, multiply_in_float8
from entracte.models.registry import ModelVersion
from entracte.residency import ComponentSpec, Computed, Stored, TensorSpec

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
        info = source.tensors[name].info
        floats = info.dtype.is_floating_point and info.dtype is not torch.float8_e8m0fnu
        if info.format is None and not floats:
            raise CheckpointError(
                f"{source.name}: {_in_file(source, name)} is {info.kind}, quantised without the "
                f"scales that it needs; {TAKE_BFLOAT16}"
            )
    multiply_in_float8(module, source.float8)
    return module


def _in_file(source: ComponentSource, name: str) -> str:
    located = source.tensors[name]
    return f"{located.key} of {located.file.path}"


def stored_weights(source: ComponentSource, version: ModelVersion) -> Mapping[str, Stored]:
    """The parameters that stay as they are stored until they arrive: quantised ones of linears in
    blocks. All else is small, or comes in one piece, and takes the model's dtype as it is read.
    """
    blocks = version.blocks.get(source.name)
    found = {}
    for name, located in source.tensors.items():
        info = located.info
        of_linear = len(info.shape) == 2 and name.endswith(".weight")
        in_blocks = blocks is not None and name.startswith(f"{blocks}.")
        if info.format is not None and info.format.on_device and of_linear and in_blocks:
            parts = {end: TensorSpec(each.dtype, each.shape) for end, each in info.parts.items()}
            found[name] = Stored(info.format, parts)
    return found


class FileSource:
    """A component's tensors in files, as a weight source for the device manager.

    dtype: the model's. stored: of the parameters that stay as they are stored.
    """

    def __init__(self, source: ComponentSource, version: ModelVersion, dtype: torch.dtype) -> None:
        self._tensors = source.tensors
        self.stored = stored_weights(source, version)
        self._parts = {
            name + end: (name, end) for name, each in self.stored.items() for end in each.tensors
        }
        dtype = version.dtype_of(source.name, dtype)
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(
                dtype,
                located.info.shape,
                stored=self.stored.get(name),
                computed=_computed(source, name),
            )
            for name, located in source.tensors.items()
        }

    def read(self, name: str, out: Tensor) -> None:
        """Read a tensor, as the dtype of `out`; or one of those that are stored of a parameter."""
        if name in self._parts:
            parameter, end = self._parts[name]
            located = self._tensors[parameter]
            located.file.read_stored(located.key, end, out)
        else:
            self._tensors[name].read(out)


def component_spec(
    source: ComponentSource, version: ModelVersion, device: torch.device, dtype: torch.dtype
) -> ComponentSpec:
    """A component as the device manager wants it; no weight is read. dtype: the model's."""
    files = FileSource(source, version, dtype)

    def build_stored() -> Component:
        module = build_component(source, version)
        compute_from_stored(
            module, {name: (each.format, _empty(each)) for name, each in files.stored.items()}
        )
        return prepare_module(module, device)

    return ComponentSpec(
        source.name,
        lambda: prepare_module(build_component(source, version), device),
        {"base": files},
        version.blocks.get(source.name),
        build_stored if files.stored and not source.float8 else None,
    )


def _computed(source: ComponentSource, name: str) -> Computed | None:
    if name not in source.float8:
        return None
    parts = {end: TensorSpec(*part) for end, part in source.float8[name].items()}
    stored = source.tensors[name].info.format
    return Computed(Float8Weights(), parts, takes=stored if multiplies(stored) else None)


def _empty(stored: Stored) -> dict[str, Tensor]:
    """Its tensors on the meta device."""
    return {
        end: torch.empty(part.shape, dtype=part.dtype, device="meta")
        for end, part in stored.tensors.items()
    }


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
