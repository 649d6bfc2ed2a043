"""The folders of a model that is published in parts. Needs no torch."""

from pathlib import Path

from .diffusers_configs import is_diffusers_folder
from .shards import INDEX_SUFFIX, SUFFIXES

# Where files lie that hold a part of a model each, as published and as in ComfyUI.
SPLIT_FOLDERS = (
    "diffusion_models",
    "text_encoders",
    "vae",
    "loras",
    "latent_upscale_models",
    "model_patches",
)


def weights_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The indices of shards, and the weight files, of a folder and of its folders of split models.

    Raises OSError.
    """
    split = [] if is_diffusers_folder(folder) else [folder / name for name in SPLIT_FOLDERS]
    places = [folder, *(each for each in split if each.is_dir())]
    indices = [each for place in places for each in sorted(place.glob(f"*{INDEX_SUFFIX}"))]
    ends = [f"*{end}" for end in SUFFIXES]
    return indices, [each for place in places for end in ends for each in sorted(place.glob(end))]
