"""The version and the config of a model, from its files' headers or from their shapes.

Needs no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from entracte.errors import CheckpointError

from .parts import DURATION_HEAD, PARTS, Weights, components_of, full_keys, is_checkpoint, part_of
from .published_sizes import LISTED, published_keys, published_listing
from .versions import version_name

TRANSFORMER = "transformer"
BLOCK = "transformer_blocks.0."

# What LTX-2.0 does not have.
MARK = "prompt_adaln_single.linear.weight"

# And what only LTX-2.5 has.
KEYFRAMES = "keyframes_abs_pos_embedding"


def is_model_file(file: Weights) -> bool:
    """Whether a file holds any of a model: by its config, or by its tensors' names alone."""
    if is_checkpoint(file.config):
        return True
    keys = full_keys(file).values()
    return any(not published_keys(version).isdisjoint(keys) for version in LISTED)


def model_config(files: Sequence[Weights]) -> tuple[str, dict[str, Any]]:
    """The version of one model's files, by its name, and its config.

    A part that no header describes is inferred: the transformer's from shapes, others are taken to
    be as published. Raises CheckpointError for files of another model, or of several versions.
    """
    config: dict[str, Any] = {}
    versions: dict[str, object] = {}
    for file in files:
        if is_checkpoint(file.config):
            config.update(_own_config(file))
            versions.setdefault(version_name(file.metadata, file.config, file.path), file.path)
    if len(versions) > 1:
        named = ", ".join(f"{path} is LTX-{name}" for name, path in versions.items())
        raise CheckpointError(f"these files are of different versions: {named}")
    shapes = {
        full: file.tensors[key].shape for file in files for key, full in full_keys(file).items()
    }
    parts = {part.config for part in map(part_of, shapes) if part is not None}
    missing = parts - config.keys()
    metadata = next((file.metadata for file in files if file.metadata), {})
    name = next(iter(versions), None)
    if TRANSFORMER in missing and TRANSFORMER in components_of(shapes):
        config[TRANSFORMER] = _inferred(name, files[0].path, shapes)
    name = name or version_name(metadata, config, files[0].path)
    missing -= config.keys()
    if missing:
        published = published_listing(name)["metadata"]["config"]
        config |= {part: published[part] for part in missing}
    return name, config


def _own_config(file: Weights) -> Mapping[str, Any]:
    """What a file's config says of its own tensors; a duration head's has more."""
    for name in {part.config for part in PARTS}:
        if not isinstance(file.config.get(name, {}), dict):
            raise CheckpointError(
                f"{file.path}: the part {name} of its config is not a JSON object"
            )
    if any(key.startswith(DURATION_HEAD) for key in file.tensors):
        return {name: part for name, part in file.config.items() if name != TRANSFORMER}
    return file.config


def _inferred(
    version: str | None, where: object, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """A transformer's config: the published one, with the sizes that its tensors have.

    version: by its name, where a header declares it.
    """
    of = {
        part.kept + full.removeprefix(part.prefix): shape
        for full, shape in shapes.items()
        if (part := part_of(full)) is not None and part.config == TRANSFORMER
    }
    if version is None:
        version = "2.5" if KEYFRAMES in of else "2.3" if MARK in of else "2.0"
    config: dict[str, Any] = dict(published_listing(version)["metadata"]["config"][TRANSFORMER])
    layers = {name.split(".")[1] for name in of if name.startswith("transformer_blocks.")}
    config["num_layers"] = len(layers)
    for stream in ("", "audio_"):
        try:
            width = of[f"{stream}scale_shift_table"][1]
            # Without gates nothing tells how many there are.
            heads = config[f"{stream}num_attention_heads"]
            if config.get("apply_gated_attention"):
                heads = of[f"{BLOCK}{stream}attn1.to_gate_logits.bias"][0]
            sizes = {
                "in_channels": of[f"{stream}patchify_proj.weight"][1],
                "out_channels": of[f"{stream}proj_out.weight"][0],
                "num_attention_heads": heads,
                "attention_head_dim": width // heads,
                "cross_attention_dim": of[f"{BLOCK}{stream}attn2.to_k.weight"][1],
            }
        except (KeyError, IndexError, ZeroDivisionError) as error:
            raise CheckpointError(
                f"{where}: it has no config, and its tensors do not tell its sizes ({error})"
            ) from None
        config |= {f"{stream}{name}": size for name, size in sizes.items()}
        config |= _connector(of, stream)
    return config


def _connector(of: Mapping[str, Sequence[int]], stream: str) -> dict[str, int]:
    """The sizes of a stream's connector, where it is in the files."""
    blocks = f"{'video' if not stream else 'audio'}_embeddings_connector.transformer_1d_blocks."
    layers = {name.removeprefix(blocks).split(".")[0] for name in of if name.startswith(blocks)}
    gates, norm = (
        of.get(f"{blocks}0.attn1.{end}") for end in ("to_gate_logits.bias", "q_norm.weight")
    )
    if not (layers and gates and norm and gates[0]):
        return {}
    return {
        f"{stream}connector_num_layers": len(layers),
        f"{stream}connector_num_attention_heads": gates[0],
        f"{stream}connector_attention_head_dim": norm[0] // gates[0],
    }
