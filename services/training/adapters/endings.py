"""Which named reason an exception of the training libraries is."""

from __future__ import annotations

import errno

import torch

from services.training.health import RunStopped
from services.training.reports import TrainFailure

_NO_SPACE = ("no space left on device", "disk quota exceeded", "os error 28")
_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
_TORN_WRITE = ("pytorchstreamwriter failed", "unexpected pos", "file write failed")


def failure_of(error: BaseException, step: int, *, disk_is_full: bool = False) -> TrainFailure:
    """The failure `error` is, for a run that had finished `step` steps.

    torch reports a torn write without its cause; `disk_is_full` decides that one.
    """
    if isinstance(error, RunStopped):
        return TrainFailure(reason=error.reason, message=error.message, mend=error.mend, step=step)
    chain = list(_causes(error))
    text = " ".join(str(e).lower() for e in chain)
    if any(isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT) for e in chain) or (
        any(t in text for t in _NO_SPACE) or (disk_is_full and any(t in text for t in _TORN_WRITE))
    ):
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


def _causes(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
