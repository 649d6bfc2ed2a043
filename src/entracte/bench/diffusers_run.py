"""diffusers' own two-stage video on the weights and the requests of this engine.

It follows the two-stage example of diffusers' documentation: `LTX2Pipeline` to latents, then
`LTX2LatentUpsamplePipeline`, then `LTX2Pipeline` again with the distilled LoRA as an adapter
(`load_lora_weights` and `set_adapters`, not fused) and the distilled noise levels as they are. All
weights stay on the device. The adapter is loaded once, disabled for stage 1, enabled for stage 2.

Where the pipelines leave a choice, it is the one that makes the numbers our recipe's:

- Both stages are given their noise levels. The pipeline's own depend on the number of tokens.
- Both are given latents with `NoiseSource`'s noise mixed in. (The pipeline's `noise_scale` would
  draw noise of its own, which depends on the device.)
- The audio of stage 1 is decoded, and the vocoder runs in float32, as in our recipe.
- Stage 2 turns every kind of guidance off, that of audio too, which the example leaves on.
- A picture is prepared as ours are, and given as the latents' first frame, which
  `LTX2ImageToVideoPipeline` keeps.

Choices that make diffusers faster than the example: prompts are encoded once, not once a stage; the
text encoder is the language half alone, without image tower and logits; the decoder's tiles are as
large as ours; frames are converted on the device. The connectors run inside the pipeline, in both
stages: "denoise" and "refine" contain them.

In float32 the latents are ours but for rounding; from a picture, guidance rescales by another
deviation, to which the first frame's own estimates belong. In bfloat16 they are not, by a few per
cent: the pipeline keeps its latents in float32 from step to step, where the official one, and ours,
round them; it rotates queries and keys in float32; it evaluates both prompts as one batch, under a
mask of ones; and it adds the adapter to a layer's output, where ours merges it into the weight,
rounded.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    LTX2ImageToVideoPipeline,
    LTX2Pipeline,
)
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplePipeline
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from entracte.binding import BoundRequest
from entracte.checkpoints.sources import Located, ModelSource
from entracte.errors import CheckpointError, RequestError
from entracte.models.tiling import Tiling
from entracte.pipeline.conditions import EncodedImage, PreparedImage, fit_images, prepare_images
from entracte.pipeline.latents import Latents, empty_latents, prepare_latents
from entracte.pipeline.resolve import resolve
from entracte.pipeline.resolved import ResolvedPhase, ResolvedRequest
from entracte.planner.workload import recipe_weights
from entracte.request import Request
from entracte.sampling.noise import NoiseSource
from entracte.sampling.tokens import audio_latent, audio_tokens, video_latent
from entracte.stages import DECODE_AUDIO, DECODE_VIDEO, ENCODE_TEXT, UPSAMPLE, VALIDATE

from .compiled import compile_blocks
from .diffusers_request import UNGUIDED, guidance_arguments, require_comparable, scale_arguments
from .diffusers_result import DiffusersResult
from .diffusers_weights import load_component
from .stopwatch import Stopwatch

ADAPTER = "stage_2_distilled"


class DiffusersTwoStage:
    """diffusers' pipelines with a source's weights on a device. Weights are read here, once.

    tile: decode the video in tiles, as the documented example does, but in tiles of our size:
        smaller ones, the pipeline's default, give other frames near the seams and take longer.
    compiled: compile the transformer's blocks, at the first run of every shape.

    Raises CheckpointError where the source lacks the upsampler or the distilled LoRA, where
    diffusers cannot hold a tensor, or where PEFT is missing, which diffusers' LoRAs need.
    """

    def __init__(
        self,
        source: ModelSource,
        device: torch.device,
        dtype: torch.dtype,
        tile: bool = True,
        compiled: bool = False,
    ) -> None:
        if importlib.util.find_spec("peft") is None:
            raise CheckpointError("diffusers needs PEFT for the distilled LoRA: pip install peft")
        if "upsampler" not in source.components or source.distilled_lora is None:
            raise CheckpointError("two stages need the latent upsampler and the distilled LoRA")
        self._device, self._dtype = device, dtype
        self._defaults = source.version.defaults
        self._layers: int = source.components["transformer"].config["num_layers"]
        models: dict[str, Any] = {
            name: load_component(source, name, device, dtype) for name in source.components
        }
        self._vae = models.pop("video_vae")
        if tile:
            tiling = Tiling()
            side, stride = tiling.pixels, tiling.pixels - tiling.pixel_overlap
            self._vae.enable_tiling(
                tile_sample_min_height=side,
                tile_sample_min_width=side,
                tile_sample_stride_height=stride,
                tile_sample_stride_width=stride,
            )
        self._upsampler: Any = LTX2LatentUpsamplePipeline(self._vae, models.pop("upsampler"))
        models |= {
            # It shifts nothing: every stage is given its noise levels.
            "scheduler": FlowMatchEulerDiscreteScheduler(),
            "tokenizer": PreTrainedTokenizerFast.from_pretrained(str(source.tokenizer)),
            "vae": self._vae,
        }
        self._pipeline: Any = LTX2Pipeline(**models)
        self._from_picture: Any = LTX2ImageToVideoPipeline(**models)
        for pipeline in (self._pipeline, self._from_picture):
            pipeline.set_progress_bar_config(disable=True)
        file, self._strength = source.distilled_lora
        factors = {key: Located(file, key).tensor().to(device, dtype) for key in file.tensors}
        self._pipeline.load_lora_weights(factors, adapter_name=ADAPTER)
        placed = sum(".lora_" in name for name in self._pipeline.transformer.state_dict())
        if placed != len(factors):
            raise CheckpointError(
                f"diffusers has a place for {placed} of {len(factors)} tensors of {file.path}"
            )
        if compiled:
            compile_blocks(self._pipeline.transformer)

    def run(self, request: Request) -> DiffusersResult:
        """Make a video with sound as the two-stage recipe does.

        Raises RequestError for what the pipelines cannot do in the same way: several images, or one
        that diffusers cannot encode, LoRAs, another pipeline, or guidance that they have no
        arguments for.
        """
        require_comparable(request)
        if request.images and isinstance(self._vae.encoder, nn.Identity):
            raise RequestError("images: diffusers cannot express this model's encoder of pictures")
        weights = recipe_weights(request.recipe)
        resolved = resolve(request, self._defaults, self._layers, weights)
        guidance = guidance_arguments(resolved.request)
        watch = Stopwatch(self._device)
        with torch.inference_mode():
            latents, frames, audio = self._generate(resolved, guidance, watch)
        return DiffusersResult(
            stages=watch.stages,
            steps=watch.steps,
            seconds=watch.seconds,
            peak_bytes=watch.peak_bytes(),
            latents={name: latent.float().cpu() for name, latent in latents.items()},
            frames=frames,
            audio=audio,
        )

    def _generate(
        self, resolved: ResolvedRequest, guidance: dict[str, Any], watch: Stopwatch
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The latents of both stages, frames and sound."""
        request, (first, second) = resolved.request, resolved.phases
        noise = NoiseSource(request.seed)
        with watch.stage(VALIDATE.name):
            pictures = prepare_images(request.images)
        with watch.stage(ENCODE_TEXT.name):
            prompt, negative = self._encode(request)
        with watch.stage(first.phase.stages.prepare_latents.name):
            channels: int = self._vae.config.latent_channels
            start = empty_latents(
                first.grid, channels, request.audio_tokens, self._device, self._dtype
            )
            noisy = self._noisy(start, first, pictures, noise)
        with watch.stage(first.phase.stages.switch.name):
            self._pipeline.disable_lora()
        half = self._denoise(request, first, noisy, prompt | negative | guidance, watch)
        with watch.stage(UPSAMPLE.name):
            upsampled = self._upsampler(
                latents=half.video,
                output_type="latent",
                return_dict=False,
            )[0]
        with watch.stage(second.phase.stages.prepare_latents.name):
            start = self._normalised(Latents(upsampled, half.audio))
            start = Latents(start.video.to(self._dtype), start.audio.to(self._dtype))
            noisy = self._noisy(start, second, pictures, noise)
        with watch.stage(second.phase.stages.switch.name):
            self._pipeline.enable_lora()
            self._pipeline.set_adapters(ADAPTER, self._strength * second.phase.distilled)
        unguided = scale_arguments(UNGUIDED, UNGUIDED)
        full = self._denoise(request, second, noisy, prompt | unguided, watch)
        latents = {}
        for each, made in ((first, half), (second, full)):
            normalised = self._normalised(made)
            latents[f"{each.phase.name}.video_latent"] = normalised.video
            latents[f"{each.phase.name}.audio_latent"] = normalised.audio
        with watch.stage(DECODE_AUDIO.name):
            audio = self._decode_audio(half.audio)
        with watch.stage(DECODE_VIDEO.name):
            frames = self._decode_video(full.video)
        return latents, frames, audio

    def _encode(self, request: BoundRequest) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The prompt's states and mask as the pipeline's arguments, and the negative prompt's."""
        cfg = max(request.video_guidance.cfg, request.audio_guidance.cfg) > 1
        states, mask, negative_states, negative_mask = self._pipeline.encode_prompt(
            request.prompt, request.negative_prompt, do_classifier_free_guidance=cfg
        )
        prompt = {"prompt_embeds": states, "prompt_attention_mask": mask}
        negative = {
            "negative_prompt_embeds": negative_states,
            "negative_prompt_attention_mask": negative_mask,
        }
        return prompt, negative

    def _noisy(
        self,
        start: Latents,
        phase: ResolvedPhase,
        pictures: Sequence[PreparedImage],
        noise: NoiseSource,
    ) -> dict[str, Tensor]:
        """Normalised latents with noise, as the pipeline's arguments: float32, denormalised."""
        images = self._encode_images(phase, pictures)
        video, audio = prepare_latents(start, phase.grid, images, noise, phase.sigmas[0])
        (video_mean, video_std), (audio_mean, audio_std) = self._statistics()
        return {
            "latents": video_latent(video.latent.float(), phase.grid) * video_std + video_mean,
            "audio_latents": audio_latent(audio.latent.float() * audio_std + audio_mean),
        }

    def _encode_images(
        self, phase: ResolvedPhase, pictures: Sequence[PreparedImage]
    ) -> list[EncodedImage]:
        """Pictures as normalised latents, without tiles, as ours are."""
        (mean, std), _ = self._statistics()
        tiled, self._vae.use_tiling = self._vae.use_tiling, False
        images = []
        for each in fit_images(pictures, phase.grid, self._device, self._dtype):
            latent = self._vae.encode(each.pixels).latent_dist.mode()
            images.append(EncodedImage((latent - mean) / std, each.frame, each.strength))
        self._vae.use_tiling = tiled
        return images

    def _denoise(
        self,
        request: BoundRequest,
        phase: ResolvedPhase,
        noisy: dict[str, Tensor],
        arguments: dict[str, Any],
        watch: Stopwatch,
    ) -> Latents:
        """One stage's loop; its latents as the pipeline gives them, denormalised float32."""
        name, divisor = phase.phase.stages.loop.name, phase.phase.divisor
        pipeline = self._from_picture if request.images else self._pipeline

        def on_step(_: Any, __: int, ___: Any, state: dict[str, Any]) -> dict[str, Any]:
            watch.step(name)
            return state

        with watch.stage(name):
            video, audio = pipeline(
                height=request.height // divisor,
                width=request.width // divisor,
                num_frames=request.num_frames,
                frame_rate=request.frame_rate,
                num_inference_steps=phase.steps,
                sigmas=list(phase.sigmas[:-1]),  # the scheduler appends 0
                callback_on_step_end=on_step,
                callback_on_step_end_tensor_inputs=[],
                output_type="latent",
                return_dict=False,
                **noisy,
                **arguments,
            )
        return Latents(video, audio)

    def _normalised(self, latents: Latents) -> Latents:
        """Latents as the VAEs make them, as the transformer knows them."""
        (video_mean, video_std), (audio_mean, audio_std) = self._statistics()
        tokens = (audio_tokens(latents.audio) - audio_mean) / audio_std
        return Latents((latents.video - video_mean) / video_std, audio_latent(tokens))

    def _statistics(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Mean and deviation of video, [1, channels, 1, 1, 1], and of audio, [128]."""
        video, audio = self._vae, self._pipeline.audio_vae
        shape = (1, -1, 1, 1, 1)
        return (
            (video.latents_mean.view(shape), video.latents_std.view(shape)),
            (audio.latents_mean, audio.latents_std),
        )

    def _decode_audio(self, latent: Tensor) -> Tensor:
        vae, vocoder = self._pipeline.audio_vae, self._pipeline.vocoder
        mel = vae.decode(latent.to(vae.dtype), return_dict=False)[0]
        waveform: Tensor = vocoder(mel.to(vocoder.dtype))
        return waveform[0].cpu()

    def _decode_video(self, latent: Tensor) -> Tensor:
        pixels = self._vae.decode(latent.to(self._vae.dtype), return_dict=False)[0]
        frames: Tensor = self._pipeline.video_processor.postprocess_video(pixels, "pt")[0]
        levels = (frames * 255).round().to(torch.uint8)
        return levels.permute(0, 2, 3, 1).cpu().contiguous()
