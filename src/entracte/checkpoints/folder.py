"""The contents of a folder of model files, and the choice among them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from entracte.errors import CheckpointError
from entracte.models.video_vae import is_diffusion_vae

from .gemma4_file import is_gemma4
from .gemma_folder import is_gemma
from .lora import is_lora
from .model_config import is_model_file
from .official import newest, newest_of_kind
from .parts import components_of, full_keys, is_checkpoint, require_readable
from .published import is_upsampler, open_upsampler
from .shards import shards_of
from .split_folders import weights_in
from .versions import version_name
from .weights_file import WeightsFile, open_weights

OTHER_FORMATS = ("*.pt", "*.pth", "*.ckpt", "*.bin")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Files that belong together: one, or the shards of one."""

    files: tuple[WeightsFile, ...]

    @property
    def name(self) -> str:
        return self.files[0].path.name

    @property
    def keys(self) -> frozenset[str]:
        """As they are called where all of a model is in one file."""
        return frozenset(full for file in self.files for full in full_keys(file).values())

    @property
    def has_diffusion_decoder(self) -> bool:
        return any(is_diffusion_vae(file.config.get("vae", {})) for file in self.files)

    @property
    def components(self) -> frozenset[str]:
        return components_of(self.keys)


@dataclass(slots=True)
class Folder:
    """What a folder holds, by kind.

    others: readable files of no use here. unreadable: files, and why. chosen: choices among several
    files, and why.
    """

    path: Path
    checkpoints: list[WeightFiles] = field(default_factory=list)
    upsamplers: list[WeightsFile] = field(default_factory=list)
    loras: list[WeightsFile] = field(default_factory=list)
    gemmas: list[Path] = field(default_factory=list)
    text_encoders: list[WeightsFile] = field(default_factory=list)
    others: list[WeightsFile] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)
    chosen: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Remarks on the choice, for the user."""
        return [*self.chosen, *(f"skipped {reason}" for reason in self._skipped())]

    def note_choice(self, name: str, what: str, names: Sequence[str]) -> None:
        """Note which of several files was chosen."""
        self.chosen.append(f"{self.path}: taking {name}, {what} of {', '.join(names)}")

    def why_not(self) -> str:
        """The skipped files, for a message about what is missing."""
        return "".join(f"\nskipped {reason}" for reason in self._skipped())

    def _skipped(self) -> Iterator[str]:
        for file in self.others:
            yield f"{file.path}: it is not a part of an LTX model that is needed"
        yield from self.unreadable.values()


def scan(path: Path) -> Folder:
    """Read the headers of a folder's files, and of those in the folders of split models.

    Hidden files are ignored, unreadable ones skipped.
    """
    found = Folder(path)
    seen: set[Path] = set()
    try:
        indices, paths = weights_in(path)
        others = sorted(each for pattern in OTHER_FORMATS for each in path.glob(pattern))
        configs = sorted(path.glob("*/config.json"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    for each in (*indices, *paths):
        if each.name.startswith(".") or each in seen:
            continue
        try:
            members = shards_of(each)
            seen.update(members)
            _add(found, WeightFiles(tuple(map(open_weights, members))))
        except CheckpointError as error:
            found.unreadable[each] = str(error)
    for each in others:
        try:
            open_weights(each)
        except CheckpointError as error:
            found.unreadable[each] = str(error)
    found.gemmas = [config.parent for config in configs if is_gemma(config.parent)]
    return found


def _add(found: Folder, weights: WeightFiles) -> None:
    first = weights.files[0]
    for file in weights.files:
        require_readable(file)
        if is_checkpoint(file.config):
            version_name(file.metadata, file.config, file.path)  # raises for others
    if is_gemma4(first):
        found.text_encoders.append(first)
    elif is_upsampler(first):
        found.upsamplers.append(first)
    elif any(map(is_model_file, weights.files)):
        found.checkpoints.append(weights)
    elif is_lora(first):
        found.loras.append(first)
    else:
        found.others.extend(weights.files)


def choose_checkpoint(found: Folder, distilled: bool) -> list[WeightsFile]:
    """The files of one model: one with a transformer, and what others add to it.

    Raises CheckpointError if there is none, or several that cannot be distinguished.
    """
    if not found.checkpoints:
        raise CheckpointError(
            f"{found.path} holds no LTX checkpoint; give `checkpoint_path`{found.why_not()}",
            settings=("checkpoint_path",),
        )
    whole = [each for each in found.checkpoints if "transformer" in each.components]
    names = newest_of_kind([each.name for each in whole], distilled)
    named = [each for each in whole if each.name in names]
    if len(named) > 1:
        raise CheckpointError(
            f"{found.path} holds several checkpoints ({', '.join(names)}); name one with "
            "`checkpoint_path`",
            settings=("checkpoint_path",),
        )
    if len(whole) > 1:
        kind = "distilled" if distilled else "base"
        found.note_choice(named[0].name, f"the newest {kind} checkpoint", [e.name for e in whole])
    taken = list(named)
    held = set().union(*(each.keys for each in taken))
    # Of two video decoders the convolutional one: the other has to be asked for.
    for each in sorted(found.checkpoints, key=lambda each: each.has_diffusion_decoder):
        if each not in whole and not each.keys & held:
            taken.append(each)
            held |= each.keys
        elif each not in whole:
            found.others.extend(each.files)
    return [file for each in taken for file in each.files]


def choose_upsampler(found: Folder) -> WeightsFile | None:
    """The newest upsampler that the recipes can use."""
    fitting = []
    for file in found.upsamplers:
        try:
            open_upsampler(file)
        except CheckpointError:
            continue  # another kind of upsampler lies beside ours
        fitting.append(file)
    return _newest(found, fitting, "upsampler")


def choose_distilled_lora(found: Folder) -> WeightsFile | None:
    """The newest LoRA that is called distilled."""
    named = [file for file in found.loras if "distilled" in file.path.name]
    return _newest(found, named, "distilled LoRA")


def _newest(found: Folder, files: Sequence[WeightsFile], what: str) -> WeightsFile | None:
    by_name = {file.path.name: file for file in files}
    if not by_name:
        return None
    name = newest(by_name)
    if len(by_name) > 1:
        found.note_choice(name, f"the newest {what}", list(by_name))
    return by_name[name]
