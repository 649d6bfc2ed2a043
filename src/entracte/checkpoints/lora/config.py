"""PEFT's configuration of a LoRA, from a file beside it or from the header's metadata."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from entracte.errors import LoraError

from ..adapter_folder import PEFT_WEIGHTS
from ..sources import TensorFile

FILE = "adapter_config.json"
# diffusers' key in the header's metadata.
METADATA = "lora_adapter_metadata"
MAX_BYTES = 4 * 2**20

KINDS = ("LORA", "LOHA", "LOKR")
# Initialisations that change the base weights, which a file of factors does not contain.
CHANGES_BASE = re.compile(r"pissa|olora|loftq|corda|lora_ga")
# Options that give the factors another meaning.
OTHER_METHODS = (
    "alora_invocation_tokens", "arrow_config", "layer_replication", "use_bdlora", "use_qalora",
)  # fmt: skip

# To PEFT a pattern is a regular expression. Those that are more than a name are bounded, so that
# matching always ends.
LITERAL = re.compile(r"\^?[\w.-]+")
REPEATED_GROUP = re.compile(r"\)[*+?{]")
REPETITION = re.compile(r"(?<!\\)[*+?{]")
# Python warns of these within a set of characters: they may come to mean something else there.
AMBIGUOUS_SET = re.compile(r"\[\^?\[|--|&&|~~|\|\|")
MAX_REPETITIONS = 2
MAX_EXPRESSIONS = 64
MAX_EXPRESSION_LENGTH = 200

Alpha = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Rank = Annotated[int, Field(strict=True, ge=1)]


class PeftConfig(BaseModel):
    """The part of PEFT's configuration that says what factors mean."""

    model_config = ConfigDict(extra="allow", frozen=True)

    peft_type: str = "LORA"
    r: Rank | None = None
    lora_alpha: Alpha | None = None
    alpha: Alpha | None = None  # of LoHa and LoKr
    rank_pattern: dict[str, Rank] = {}
    alpha_pattern: dict[str, Alpha] = {}
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    init_lora_weights: Any = True


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """A configuration. where: its name in messages."""

    where: str
    config: PeftConfig
    ranks: "Patterns"
    alphas: "Patterns"

    def rank(self, names: Iterable[str]) -> int | None:
        """The rank of a module, by any of its names."""
        found = self.ranks.find(names)
        return self.config.r if found is None else int(found)

    def scale(self, names: Iterable[str], rank: int) -> float | None:
        """PEFT's scale of a module's change; None if the configuration has no alpha."""
        alpha = self.alphas.find(names)
        if alpha is None:
            lora = self.config.peft_type == "LORA"
            alpha = self.config.lora_alpha if lora else self.config.alpha
        if alpha is None:
            return None
        return alpha / (sqrt(rank) if self.config.use_rslora else rank)


class Patterns:
    """Values by patterns of module names, as PEFT matches them.

    A pattern fits a name, or what follows a dot in it; one that begins with `^` fits whole names.
    The first match counts. Raises ValueError for an expression that might not end.
    """

    def __init__(self, values: Mapping[str, float]) -> None:
        self._literals: dict[str, tuple[int, float]] = {}
        self._expressions: list[tuple[int, re.Pattern[str], float]] = []
        for number, (pattern, value) in enumerate(values.items()):
            if LITERAL.fullmatch(pattern):
                self._literals.setdefault(pattern, (number, value))
            else:
                expression = _bounded(pattern)
                self._expressions.append((number, expression, value))
        if len(self._expressions) > MAX_EXPRESSIONS:
            raise ValueError(f"it has over {MAX_EXPRESSIONS} patterns with signs beyond a name's")

    def find(self, names: Iterable[str]) -> float | None:
        """The value for a module, by the first of its names that any pattern matches."""
        for name in names:
            segments = name.split(".")
            ends = [".".join(segments[first:]) for first in range(len(segments))]
            fitting = [self._literals[end] for end in (f"^{name}", *ends) if end in self._literals]
            fitting += [(at, value) for at, each, value in self._expressions if each.match(name)]
            if fitting:
                return min(fitting)[1]
        return None


def read_settings(file: TensorFile) -> tuple[dict[str, LoraSettings], tuple[str, ...]]:
    """A LoRA's configuration for every component, and warnings.

    diffusers' metadata in the header wins over an `adapter_config.json` beside the file, because it
    cannot belong to another file. Raises LoraError if damaged or not supported.
    """
    found = _from_header(file)
    if found:
        return found, ()
    path = file.path.parent / FILE
    if not path.is_file():
        return {}, ()
    others = [each for each in path.parent.glob("*.safetensors") if not each.name.startswith(".")]
    if file.path.name != PEFT_WEIGHTS and len(others) > 1:
        words = f"the {FILE} beside it is not read, for the folder has several LoRAs"
        return {}, (words,)
    settings = _understand(file.path, FILE, _read_json(file.path, path))
    return dict.fromkeys(("transformer", "connectors"), settings), ()


def _from_header(file: TensorFile) -> dict[str, LoraSettings]:
    text = file.metadata.get(METADATA)
    if text is None:
        return {}
    where = f"the header's {METADATA}"
    values = _parse(file.path, where, text)
    parts: dict[str, dict[str, Any]] = {"transformer": {}, "connectors": {}}
    for key, value in values.items():
        component, dot, name = key.partition(".")
        if dot and component in parts:
            parts[component][name] = value
        elif not dot:
            parts["transformer"][key] = value
    return {
        component: _understand(file.path, where, part) for component, part in parts.items() if part
    }


def _understand(path: Path, where: str, values: Mapping[str, Any]) -> LoraSettings:
    given = {name: value for name, value in values.items() if value is not None}
    try:
        config = PeftConfig.model_validate(given)
        ranks, alphas = Patterns(config.rank_pattern), Patterns(config.alpha_pattern)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise LoraError(path, f"{where} has a wrong {name}: {first['msg']}") from None
    except ValueError as error:
        raise LoraError(path, f"{where} cannot be used: {error}") from None
    if config.peft_type not in KINDS:
        raise LoraError(path, f"it is {config.peft_type[:40]} by {where}, which is not supported")
    if isinstance(config.init_lora_weights, str) and CHANGES_BASE.match(config.init_lora_weights):
        raise LoraError(
            path,
            f"{where} says that it began from changed base weights "
            f"({config.init_lora_weights[:40]}); convert it to a plain LoRA with PEFT",
        )
    for option in OTHER_METHODS:
        if given.get(option):
            raise LoraError(path, f"{where} sets {option}, which is not supported")
    return LoraSettings(where, config, ranks, alphas)


def _read_json(lora: Path, path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise LoraError(lora, f"its {FILE} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise LoraError(lora, f"its {FILE} has over {MAX_BYTES:,} bytes")
    return _parse(lora, FILE, data)


def _parse(path: Path, where: str, text: str | bytes) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise LoraError(path, f"{where} is not JSON") from None
    if not isinstance(values, dict):
        raise LoraError(path, f"{where} is not a JSON object")
    return values


def _bounded(pattern: str) -> re.Pattern[str]:
    repetitions = len(REPETITION.findall(pattern))
    if (
        len(pattern) > MAX_EXPRESSION_LENGTH
        or repetitions > MAX_REPETITIONS
        or REPEATED_GROUP.search(pattern)
    ):
        raise ValueError(f"the pattern {pattern[:60]!r} is too complicated")
    if "[" in pattern and AMBIGUOUS_SET.search(pattern):
        raise ValueError(f"the pattern {pattern[:60]!r} has an ambiguous set of characters")
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError, RecursionError):
        raise ValueError(f"the pattern {pattern[:60]!r} is not a regular expression") from None
