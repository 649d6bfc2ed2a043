"""One evaluation by diffusers' transformer, on the weights and inputs of ours."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from entracte.bench.diffusers_weights import transformer
from entracte.checkpoints.diffusers_names import transformer_to_published
from entracte.models.transformer import StreamInput, Transformer
from entracte.sampling.tokens import VideoGrid


def sharing(model: Transformer, header: Mapping[str, Any]) -> Any:
    """diffusers' transformer on the very tensors of ours. header: the published config."""
    with torch.device("meta"):
        theirs = transformer(header)
    ours = model.state_dict()
    names = theirs.state_dict()
    theirs.load_state_dict(
        {name: ours[transformer_to_published(name)] for name in names}, assign=True
    )
    return theirs.eval().requires_grad_(False)


def diffusers_step(
    model: Any, video: StreamInput, audio: StreamInput, grid: VideoGrid, skipped: int | None
) -> Callable[[], Any]:
    """A step as diffusers' pipeline makes it: both prompts in one batch, then, where a block to
    skip is given, the skipped and the isolated pass. Two distinct timesteps have to be given it a
    token each.
    """
    guided = skipped is not None

    def call(contexts: slice, **options: Any) -> Any:
        rows = len(video.contexts[contexts])
        sigma = (audio.sigma * 1000).expand(rows)
        timestep = sigma
        if len(video.runs) > 1:
            timestep = torch.cat(
                [
                    (video.timesteps[run.timestep] * 1000).expand(rows, run.stop - run.start)
                    for run in video.runs
                ],
                dim=1,
            )
        return model(
            hidden_states=video.latent.expand(rows, -1, -1),
            audio_hidden_states=audio.latent.expand(rows, -1, -1),
            encoder_hidden_states=video.contexts[contexts],
            audio_encoder_hidden_states=audio.contexts[contexts],
            timestep=timestep,
            audio_timestep=sigma,
            sigma=sigma,
            num_frames=grid.frames,
            height=grid.height,
            width=grid.width,
            fps=grid.frame_rate,
            audio_num_frames=audio.latent.shape[1],
            use_cross_timestep=True,
            return_dict=False,
            **options,
        )

    def step() -> None:
        call(slice(0, 2 if guided else 1))
        if guided:
            call(slice(0, 1), spatio_temporal_guidance_blocks=[skipped])
            call(slice(0, 1), isolate_modalities=True)

    return step
