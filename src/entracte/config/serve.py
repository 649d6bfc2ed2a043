"""The settings of `entracte serve`."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import platformdirs
from pydantic import Field

from entracte.units import MIB

from .base import Flag, Number, Size
from .model import ModelSettings

Name = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ServeSettings(ModelSettings):
    """Settings of one `entracte serve`. Sizes are in bytes, or as `10GiB`; times in seconds."""

    table: ClassVar[str | None] = "serve"

    data_folder: Annotated[Path, Flag("service", "folder for jobs, videos and keys", "DIR")] = (
        Field(default_factory=lambda: platformdirs.user_data_path("entracte"))
    )
    database: Annotated[
        Name | None,
        Flag(
            "service",
            "its URL: sqlite:///FILE, or postgresql+psycopg://…, which servers and workers can "
            "share (default: entracte.db in --data-folder)",
            "URL",
        ),
    ] = None
    storage: Annotated[
        Name | None,
        Flag(
            "service",
            "URL of the store of videos: file:///DIR, s3://BUCKET/PREFIX, gs://… or az://… "
            "(default: videos in --data-folder)",
            "URL",
        ),
    ] = None
    redirect_seconds: Annotated[
        int | None,
        Flag("service", "send clients to the store itself, by URLs that last so long", "S"),
        Field(ge=1, le=7 * 24 * 3600),
    ] = None
    host: Annotated[Name, Flag("service", "address to listen on", "ADDRESS")] = "127.0.0.1"
    port: Annotated[
        int, Flag("service", "port to listen on; 0 picks a free one", "PORT"), Field(ge=0, le=65535)
    ] = 8000
    auth: Annotated[
        Literal["keys", "off"],
        Flag("service", "keys, or off: anyone on this machine may do anything", "KIND"),
    ] = "keys"
    devices: Annotated[
        tuple[str, ...],
        Flag(
            "service",
            "devices, with a worker each; those joined by commas make videos together (default: "
            "--device)",
            "DEVICE…",
        ),
    ] = ()
    workers: Annotated[
        Literal["here", "elsewhere"],
        Flag(
            "service",
            "here, or elsewhere: those that `entracte worker` runs with the same database",
            "WHERE",
        ),
    ] = "here"
    model_name: Annotated[
        tuple[Name, ...],
        Flag("service", "names of the model for clients; the first is shown", "NAME…"),
        Field(min_length=1),
    ] = ("ltx-2.3",)
    default_size: Annotated[
        Size, Flag("service", "size of videos requested without one", "WxH")
    ] = "720x1280"
    default_seconds: Annotated[
        float,
        Flag("service", "length of videos requested without one", "S"),
        Field(gt=0, le=3600),
    ] = 4.0
    lora_folder: Annotated[
        Path | None, Flag("service", "LoRAs that clients may request by name", "DIR")
    ] = None
    warm_up: Annotated[bool, Flag("service", "make a short video before the first request")] = True
    drain_seconds: Annotated[
        Seconds, Flag("service", "seconds that running videos may take after SIGTERM", "S")
    ] = 120.0
    nice: Annotated[
        int, Flag("service", "niceness of the workers, 0 to 19", "N"), Field(ge=0, le=19)
    ] = 5
    log_format: Annotated[
        Literal["auto", "json", "text"], Flag("service", "auto, json or text", "FORMAT")
    ] = "auto"

    max_queued: Annotated[int, Flag("limits", "queued videos", "N"), Field(ge=1)] = 100
    max_queued_per_key: Annotated[
        int, Flag("limits", "queued videos per API key", "N"), Field(ge=1)
    ] = 50
    max_queued_bytes: Annotated[
        int, Flag("limits", "images of queued videos per API key", "BYTES"), Field(ge=0)
    ] = 2048 * MIB
    max_running_per_key: Annotated[
        int | None, Flag("limits", "running videos per API key", "N"), Field(ge=1)
    ] = None
    max_body_bytes: Annotated[int, Flag("limits", "size of a request", "BYTES"), Field(ge=1024)] = (
        64 * MIB
    )
    max_image_bytes: Annotated[int, Flag("limits", "size of an image", "BYTES"), Field(ge=1024)] = (
        50 * MIB
    )
    max_image_pixels: Annotated[int, Flag("limits", "pixels of an image", "N"), Field(ge=1)] = (
        50_000_000
    )
    max_images: Annotated[int, Flag("limits", "images per request", "N"), Field(ge=0)] = 8
    max_prompt_chars: Annotated[int, Flag("limits", "characters of a prompt", "N"), Field(ge=1)] = (
        10_000
    )
    max_pixels_frames: Annotated[
        int, Flag("limits", "width x height x frames of a video", "N"), Field(ge=1)
    ] = 1920 * 1088 * 257
    max_seconds: Annotated[
        float, Flag("limits", "length of a video and its sound", "S"), Field(gt=0, le=3600)
    ] = 60.0
    max_loras: Annotated[int, Flag("limits", "LoRAs per request", "N"), Field(ge=0)] = 8
    max_lora_strength: Annotated[
        float, Flag("limits", "strength of a LoRA, positive or negative", "X"), Field(ge=0, le=100)
    ] = 10.0
    max_steps: Annotated[int, Flag("limits", "denoising steps", "N"), Field(ge=1)] = 100

    max_connections: Annotated[int, Flag("limits", "open connections", "N"), Field(ge=1)] = 1000
    max_connections_per_address: Annotated[
        int, Flag("limits", "open connections per address", "N"), Field(ge=1)
    ] = 250
    header_seconds: Annotated[
        float, Flag("limits", "until a request's header is complete", "S"), Field(gt=0)
    ] = 15.0
    body_seconds: Annotated[
        float,
        Flag("limits", "until its body is complete or came at 4 KiB/s", "S"),
        Field(gt=0),
    ] = 30.0

    keep_days: Annotated[
        float,
        Flag("retention", "days until finished videos are deleted; inf keeps them", "DAYS"),
        Field(gt=0),
    ] = 7.0
    keep_size: Annotated[
        Number | None, Flag("retention", "delete the oldest videos beyond this total size", "SIZE")
    ] = None

    trusted_proxy: Annotated[
        tuple[str, ...],
        Flag("network", "reverse proxies whose X-Forwarded-For and -Proto are trusted", "ADDRESS…"),
    ] = ()
    cors_origin: Annotated[
        tuple[str, ...],
        Flag("network", "origins of web pages that may call the service", "ORIGIN…"),
    ] = ()
    image_host: Annotated[
        tuple[str, ...], Flag("network", "hosts from which images may be fetched", "HOST…")
    ] = ()
    webhook_host: Annotated[
        tuple[str, ...],
        Flag("network", "clients may have webhooks sent to these hosts", "HOST…"),
    ] = ()
    webhook_url: Annotated[
        tuple[str, ...], Flag("network", "called when a video finishes", "URL…")
    ] = ()
    allow_network: Annotated[
        tuple[str, ...],
        Flag("network", "private networks in which such hosts may be", "CIDR…"),
    ] = ()
    allow_http: Annotated[bool, Flag("network", "allow http:// in image and webhook URLs")] = False
