"""Pack what was trained into the files of the demonstration model: `python -m training.ship`.

From `training/checkpoints`, into the archive that the package carries: the published layout, in
bfloat16, with the linears of the transformer in float8, a tokenizer, example prompts and a card.
`entracte demo-model DIR` unpacks it.
"""

import argparse
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from entracte.checkpoints.write_safetensors import with_layers
from entracte.models import audio_vae, upsampler, video_vae, vocoder
from entracte.models.audio_vae import AudioVae
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder
from entracte.synthetic.demo import CHECKPOINT, GEMMA, UPSAMPLER, connector_key
from entracte.synthetic.trained import ARCHIVE

from . import media_sizes, sizes
from .distilled_lora import Lora
from .loop import load_weights
from .text import new_tokenizer, write_tokenizer
from .transformer import Model

CHECKPOINTS = Path(__file__).parent / "checkpoints"
CARD = Path(__file__).parent / "card.md"
EXAMPLES = Path(__file__).parent / "example-prompts.txt"
DISTILLED_LORA = f"ltx-2.3-demo-distilled-lora-{sizes.LORA_RANK}.safetensors"

FLOAT8 = torch.float8_e4m3fn


def write_model(trained: Path, folder: Path) -> None:
    """Write the model's files into an existing folder.

    trained: has `video_vae`, `audio_vae`, `vocoder`, `upsampler`, `transformer` and
    `distilled_lora`, each .safetensors.
    """
    model = Model()
    load_weights(trained / "transformer.safetensors", model)
    _write_checkpoint(trained, model, folder / CHECKPOINT)
    lora = Lora(model.transformer)
    load_weights(trained / "distilled_lora.safetensors", lora)
    save_file(lora.published(), folder / DISTILLED_LORA)
    up = _loaded(Upsampler(media_sizes.UPSAMPLER), trained / "upsampler.safetensors")
    config = {"config": json.dumps(media_sizes.UPSAMPLER)}
    save_file(_weights(up, upsampler.module_to_file), folder / UPSAMPLER, config)
    (folder / GEMMA).mkdir()
    encoder = _weights(model.text.encoder, "language_model.{}".format)
    save_file(encoder, folder / GEMMA / "model.safetensors", {"format": "pt"})
    (folder / GEMMA / "config.json").write_text(json.dumps(sizes.GEMMA, indent=1))
    write_tokenizer(new_tokenizer(), folder / GEMMA)
    (folder / EXAMPLES.name).write_text(EXAMPLES.read_text())
    (folder / "README.md").write_text(CARD.read_text())


def _write_checkpoint(trained: Path, model: Model, path: Path) -> None:
    video = _loaded(VideoVae(media_sizes.VIDEO_VAE), trained / "video_vae.safetensors")
    audio = _loaded(AudioVae(media_sizes.AUDIO_VAE), trained / "audio_vae.safetensors")
    wave = _loaded(Vocoder(media_sizes.VOCODER), trained / "vocoder.safetensors")
    transformer = _weights(model.transformer, "model.diffusion_model.{}".format)
    linears = {
        f"model.diffusion_model.{name}"
        for name, module in model.transformer.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("transformer_blocks.")
    }
    tensors = {
        **in_float8(transformer, linears),
        **_weights(model.text.connectors, connector_key),
        **_weights(video, lambda name: f"vae.{video_vae.module_to_file(name)}"),
        **_weights(audio, lambda name: f"audio_vae.{audio_vae.module_to_file(name)}"),
        **_weights(wave, lambda name: f"vocoder.{vocoder.module_to_file(name)}"),
    }
    config = {
        "transformer": sizes.TRANSFORMER,
        "vae": media_sizes.VIDEO_VAE,
        "audio_vae": media_sizes.AUDIO_VAE,
        "vocoder": media_sizes.VOCODER,
    }
    said = {name: {"format": "float8_e4m3fn"} for name in sorted(linears)}
    metadata = {
        "config": json.dumps(config),
        "model_version": "2.3.0",
        "license": "Apache-2.0",
    }
    save_file(tensors, path, with_layers(metadata, said))


def in_float8(tensors: dict[str, Tensor], linears: set[str]) -> dict[str, Tensor]:
    """Tensors with the weights of linears as float8 and a scale, of which the largest is 448."""
    found = dict(tensors)
    for name in sorted(linears):
        weight = tensors[f"{name}.weight"].float()
        scale = weight.abs().max().clamp(min=1e-12) / torch.finfo(FLOAT8).max
        found[f"{name}.weight"] = (weight / scale).to(FLOAT8)
        found[f"{name}.weight_scale"] = scale
    return found


def _loaded(module: nn.Module, path: Path) -> nn.Module:
    load_weights(path, module)
    return module


def _weights(module: nn.Module, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Its tensors in bfloat16, by published key."""
    return {
        rename(name): tensor.detach().bfloat16().contiguous()
        for name, tensor in module.state_dict().items()
    }


def pack(folder: Path, archive: Path) -> None:
    """Pack a folder's files; the same files give the same bytes."""
    with tarfile.open(archive, "w:xz", preset=9) as out:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = path.stat().st_size
            with path.open("rb") as content:
                out.addfile(member, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trained", type=Path, default=CHECKPOINTS, help="folder of checkpoints")
    parser.add_argument("--archive", type=Path, default=ARCHIVE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(options.trained, Path(folder))
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        pack(Path(folder), options.archive)
    packed = options.archive.stat().st_size
    print(f"{stored:,} bytes, {packed:,} packed (at most {sizes.SHIPPED_BYTES:,})")
    if packed > sizes.SHIPPED_BYTES:
        raise SystemExit("too large to be shipped")


if __name__ == "__main__":
    main()
