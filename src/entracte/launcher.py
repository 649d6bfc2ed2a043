"""What torchrun tells the processes that it starts, in their environment."""

import os


def launched_rank() -> int:
    """The number of this process; 0 where torchrun did not start it."""
    return int(os.environ["RANK"]) if launched_ranks() > 1 else 0


def launched_ranks() -> int:
    """How many processes torchrun started; 1 where it did not."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1
