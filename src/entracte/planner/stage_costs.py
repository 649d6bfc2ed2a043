"""What the stages outside the transformer take, as laws in the sizes of what they work on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Arithmetic and memory that grow evenly with a size.

    flops, nbytes: for every unit of it. fixed_flops, fixed_nbytes: added once; may be negative.
    """

    flops: float
    nbytes: float
    fixed_flops: float = 0.0
    fixed_nbytes: float = 0.0

    def flops_of(self, size: float) -> float:
        return self.fixed_flops + self.flops * size

    def nbytes_of(self, size: float) -> float:
        return self.fixed_nbytes + self.nbytes * size


NOTHING = Cost(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class StageCosts:
    """Laws, each with its size. Bytes are of the model's dtype, results included.

    encode_text, connect_text: prompts, however long; as much memory as the longest one takes.
    encode_image: places of the latent grid, height times width; its pixels included.
    upsample: places of the smaller latent grid, frames times height times width.
    decode_frames: latent frames, for one place (height, width) of a tile. A single latent frame
        takes a tenth more memory than the law says, which is of no weight.
    decode_audio: frames of the mel spectrogram, see `mel_frames`.
    """

    encode_text: Cost
    connect_text: Cost
    encode_image: Cost
    upsample: Cost
    decode_frames: Cost
    decode_audio: Cost


def mel_frames(audio_tokens: int) -> int:
    """How many frames of the mel spectrogram audio tokens become; the first is only one."""
    return 4 * audio_tokens - 3
