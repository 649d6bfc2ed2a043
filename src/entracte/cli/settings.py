"""What `entracte generate` can be told: by flag, environment, TOML file or default, in this order.

Every field below is a flag (`video_cfg_guidance_scale` is `--video-cfg-guidance-scale`), an
environment variable (`ENTRACTE_VIDEO_CFG_GUIDANCE_SCALE`) and a key of the TOML file.
"""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from entracte.errors import RequestError

CONFIG_VARIABLE = "ENTRACTE_CONFIG"


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field looks on the command line. `values` names what follows the flag."""

    group: Literal["model", "residency", "request", "guidance", "output"]
    help: str
    values: str = ""


Number = int | float | str
Scale = float | None


class GenerateSettings(BaseSettings):
    """Settings of one `entracte generate`; None leaves the choice to the pipeline's defaults."""

    model_config = SettingsConfigDict(env_prefix="ENTRACTE_", extra="ignore")

    model: Annotated[
        str | None, Flag("model", "a model's folder, or its hub repository", "MODEL")
    ] = None
    checkpoint_path: Annotated[
        list[Path] | None, Flag("model", "the checkpoint, in one file or several", "PATH…")
    ] = None
    gemma_root: Annotated[Path | None, Flag("model", "the text encoder's folder", "DIR")] = None
    distilled_lora: Annotated[
        list[Number] | None,
        Flag("model", "the LoRA of stage 2, and its strength", "PATH [STRENGTH]"),
    ] = None
    spatial_upsampler_path: Annotated[
        Path | None, Flag("model", "the latent upsampler", "PATH")
    ] = None
    device: Annotated[str, Flag("model", "auto, cpu, cuda or cuda:N", "DEVICE")] = "auto"
    dtype: Annotated[
        Literal["bfloat16", "float32"], Flag("model", "bfloat16 or float32", "DTYPE")
    ] = "bfloat16"

    mode: Annotated[
        Literal["auto", "resident", "fused", "snapshot", "dynamic", "original", "legacy"],
        Flag(
            "residency",
            "auto, resident, fused, snapshot, dynamic or original (alias legacy)",
            "MODE",
        ),
    ] = "auto"
    snapshot_policy: Annotated[
        Literal["low-vram", "aggressive"],
        Flag("residency", "of mode snapshot: low-vram or aggressive", "POLICY"),
    ] = "low-vram"
    resident_blocks: Annotated[
        int | None,
        Flag("residency", "blocks whose base stays on the device; others are streamed", "M"),
    ] = None
    merged_blocks: Annotated[
        int | None, Flag("residency", "of mode fused: blocks that stay merged", "K")
    ] = None
    place: Annotated[
        list[str] | None,
        Flag(
            "residency",
            "where a component lives: resident, snapshot, streamed or disk",
            "COMPONENT=PLACE…",
        ),
    ] = None
    device_memory: Annotated[
        Number | None, Flag("residency", "what weights may take of the device", "SIZE")
    ] = None
    host_memory: Annotated[
        Number | None, Flag("residency", "what weights may take of host memory", "SIZE")
    ] = None
    pinned_memory: Annotated[
        Number | None, Flag("residency", "how much of that may be pinned", "SIZE")
    ] = None

    prompt: Annotated[
        str | None, Flag("request", "what the video shows and sounds like", "TEXT")
    ] = None
    negative_prompt: Annotated[str | None, Flag("request", "what it should not", "TEXT")] = None
    pipeline: Annotated[
        Literal["two-stage", "one-stage", "distilled"],
        Flag("request", "two-stage, one-stage or distilled", "NAME"),
    ] = "two-stage"
    image: Annotated[
        list[list[Number]] | None,
        Flag("request", "show an image at a frame; may be repeated", "PATH FRAME STRENGTH [CRF]"),
    ] = None
    lora: Annotated[
        list[list[Number]] | None,
        Flag("request", "merge a LoRA in all stages; may be repeated", "PATH [STRENGTH]"),
    ] = None
    height: Annotated[int | None, Flag("request", "pixels, a multiple of 64", "N")] = None
    width: Annotated[int | None, Flag("request", "pixels, a multiple of 64", "N")] = None
    num_frames: Annotated[int | None, Flag("request", "8k + 1", "N")] = None
    frame_rate: Annotated[float | None, Flag("request", "frames a second", "FPS")] = None
    num_inference_steps: Annotated[int | None, Flag("request", "steps of stage 1", "N")] = None
    seed: Annotated[int | None, Flag("request", "the noise's seed", "N")] = None
    truncate_prompt: Annotated[
        bool, Flag("request", "cut a prompt of over 1,024 tokens instead of refusing it")
    ] = False

    video_cfg_guidance_scale: Annotated[
        Scale, Flag("guidance", "away from the negative prompt; 1 is off", "X")
    ] = None
    audio_cfg_guidance_scale: Annotated[Scale, Flag("guidance", "the same for sound", "X")] = None
    video_stg_guidance_scale: Annotated[
        Scale, Flag("guidance", "away from skipped self-attention; 0 is off", "X")
    ] = None
    audio_stg_guidance_scale: Annotated[Scale, Flag("guidance", "the same for sound", "X")] = None
    video_stg_blocks: Annotated[
        list[int] | None, Flag("guidance", "blocks whose self-attention is skipped", "N…")
    ] = None
    audio_stg_blocks: Annotated[list[int] | None, Flag("guidance", "the same for sound", "N…")] = (
        None
    )
    a2v_guidance_scale: Annotated[
        Scale, Flag("guidance", "towards a picture that heeds the sound; 1 is off", "X")
    ] = None
    v2a_guidance_scale: Annotated[
        Scale, Flag("guidance", "towards sound that heeds the picture; 1 is off", "X")
    ] = None
    video_rescale_scale: Annotated[
        Scale, Flag("guidance", "how much contrast is restored, 0 to 1", "X")
    ] = None
    audio_rescale_scale: Annotated[Scale, Flag("guidance", "the same for sound", "X")] = None
    guidance_batch: Annotated[
        int, Flag("guidance", "guidance passes computed at once, 1 to 4", "N")
    ] = 1

    output_path: Annotated[
        Path, Flag("output", "an .mp4 file, or a folder for PNG frames and a WAV", "PATH")
    ] = Path("output.mp4")
    latents_path: Annotated[
        Path | None, Flag("output", "save all latents to a safetensors file", "FILE")
    ] = None
    perf_dump_path: Annotated[
        Path | None, Flag("output", "save times, waits and memory as JSON (docs/trace.md)", "FILE")
    ] = None
    trace_path: Annotated[
        Path | None, Flag("output", "save a Chrome trace, which Perfetto opens", "FILE")
    ] = None
    trace_level: Annotated[
        Literal["off", "stages", "blocks"],
        Flag("output", "off, stages, or blocks: every block's run too", "LEVEL"),
    ] = "stages"
    nvtx: Annotated[bool, Flag("output", "name stages for Nsight by NVTX ranges")] = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlSource(settings_cls)


class TomlSource(PydanticBaseSettingsSource):
    """The TOML file: `ENTRACTE_CONFIG`, or `config.toml` in the user's configuration folder."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # the whole file is read at once

    def __call__(self) -> dict[str, Any]:
        named = os.environ.get(CONFIG_VARIABLE)
        path = Path(named) if named else platformdirs.user_config_path("entracte") / "config.toml"
        if not named and not path.is_file():
            return {}
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise RequestError(f"cannot read the settings file {path}: {error.strerror}") from None
        except tomllib.TOMLDecodeError as error:
            raise RequestError(f"the settings file {path} is no TOML: {error}") from None
        unknown = values.keys() - known_names()
        if unknown:
            raise RequestError(
                f"the settings file {path} has unknown keys: {', '.join(sorted(unknown))}"
            )
        return values


def known_names() -> set[str]:
    """The names of all settings, as flags and TOML have them (with `_` for `-`)."""
    return set(GenerateSettings.model_fields)


def read_settings(flags: dict[str, Any]) -> GenerateSettings:
    """Combine flags with environment and file; raises RequestError, naming what is wrong."""
    try:
        return GenerateSettings(**flags)
    except ValidationError as error:
        from entracte.request import describe

        raise RequestError(describe(error)) from None
