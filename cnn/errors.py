"""Why a training run cannot go on.

TrainingError
├── Diverged           a loss or gradient is not finite
├── CheckpointInvalid  no checkpoint can be resumed from
├── DatasetMissing     the files of a dataset are nowhere
└── DataCorrupt        the files of a dataset are not what their format says
"""

from __future__ import annotations

from typing import Literal

Blame = Literal["user", "data", "capacity", "platform"]


class TrainingError(Exception):
    """A run that cannot go on, in the words that its user reads.

    Args:
        code: stable identifier in snake case, for scripts.
        message: what happened and where.
        blame: whose part it is to change something.
        hint: what may help.
    """

    def __init__(self, code: str, message: str, blame: Blame, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.blame = blame
        self.hint = hint


class Diverged(TrainingError):
    """The loss or a gradient of `step` is not finite; the weights stayed as they were after the step before."""

    def __init__(self, step: int, layer: str) -> None:
        super().__init__(
            "diverged",
            f"the loss or a gradient is not finite in step {step}, first seen in layer {layer}",
            "user",
            "lower optimizer.lr, set training.max_grad_norm, or normalize the input",
        )
        self.step = step
        self.layer = layer


class CheckpointInvalid(TrainingError):
    """There is no checkpoint that is whole and belongs to this run."""

    def __init__(self, message: str) -> None:
        super().__init__("checkpoint_invalid", message, "platform", "start again from scratch")


class DatasetMissing(TrainingError):
    """The files of a dataset are nowhere; the message says where they were sought and how to get them."""

    def __init__(self, message: str) -> None:
        super().__init__("dataset_missing", message, "data")


class DataCorrupt(TrainingError):
    """A file of a dataset is not what its format says; the message names it, what was expected and what came."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__("data_corrupt", message, "data", hint)


def is_out_of_memory(error: Exception) -> bool:
    """Whether it says that there was too little memory, of the machine or of a GPU."""
    import torch

    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
