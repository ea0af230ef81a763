"""Which named reason an exception of the training libraries is."""

from __future__ import annotations

import torch

from services.training.health import RunStopped
from services.training.reports import TrainFailure
from shared.diskspace import causes_of, is_disk_full

_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
_TORN_WRITE = ("pytorchstreamwriter failed", "unexpected pos", "file write failed")


def failure_of(error: BaseException, step: int, *, disk_is_full: bool = False) -> TrainFailure:
    """The failure `error` is, for a run that had finished `step` steps.

    torch reports a torn write without its cause; `disk_is_full` decides that one.
    """
    if isinstance(error, RunStopped):
        return TrainFailure(reason=error.reason, message=error.message, mend=error.mend, step=step)
    chain = causes_of(error)
    text = " ".join(str(e).lower() for e in chain)
    if is_disk_full(error) or (disk_is_full and any(t in text for t in _TORN_WRITE)):
        return TrainFailure(
            reason="disk_full",
            message="the disk of the work folder is full",
            mend="free space and retry the run: it resumes from its last checkpoint",
            step=step,
            retryable=True,
        )
    if any(isinstance(e, MemoryError | torch.OutOfMemoryError) for e in chain) or any(
        t in text for t in _NO_MEMORY
    ):
        return TrainFailure(
            reason="out_of_memory",
            message=f"memory ran out: {error}",
            mend="lower method.train.batch_size and raise gradient_accumulation, "
            "or lower method.train.max_length",
            step=step,
        )
    return TrainFailure(
        reason="trainer_crashed",
        message=f"{type(error).__name__}: {error}",
        mend="read the trainer's log in the work folder",
        step=step,
    )
