"""What the trainer process says: one JSON object per line on its standard output.

`working` lines are heartbeats that name the work under way, `step` lines carry the numbers of an
optimizer step, and exactly one `done` or `failed` line ends a run that was not killed. The exit
code says the same in a byte, for whoever lost the lines.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from contracts.base import Digest, Frozen
from contracts.progress import Progress
from contracts.training import StopReason

STAGE = "training"


class ExitCode(IntEnum):
    """How the trainer process ended."""

    DONE = 0
    CRASHED = 1
    STOPPED = 3
    """A named reason; see the `failed` line."""
    CANCELLED = 4
    """SIGTERM: a checkpoint is kept."""
    BUSY = 5
    """Another trainer holds the work folder."""


class TrainResult(Frozen):
    """A finished run. `adapter/` in the work folder is the artifact."""

    weights: Digest
    """Digest of `adapter_model.safetensors`."""
    steps: int
    resumed_from: int | None = None
    """The checkpoint's step, if the process that finished had not begun the run."""
    train_loss: float
    """Mean over the last ten steps."""
    validation_loss: float | None = None
    """Over the validation rows: per completion token, or per row where answers are judged."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """The method's own measures on the validation rows."""
    tokens_per_s: float
    """Unpadded tokens, prompt and completion, of this process."""
    peak_memory_bytes: int
    duration_s: float
    rows: int
    rows_too_long: int = 0
    """Rows left out because prompt and completion exceed `max_length`."""


class TrainFailure(Frozen):
    """A run that ended without an adapter. The last checkpoint is kept."""

    reason: StopReason | Literal["cancelled"]
    message: str
    mend: str = ""
    step: int = Field(default=0, ge=0)
    retryable: bool = False
    """Whether starting the same plan again can succeed; it resumes."""


class Working(Frozen):
    """A heartbeat."""

    kind: Literal["working"] = "working"
    message: str
    step: int = 0
    steps: int = 0
    peak_memory_bytes: int = 0


class Step(Frozen):
    """One optimizer step."""

    kind: Literal["step"] = "step"
    step: int
    steps: int
    loss: float
    grad_norm: float
    learning_rate: float
    tokens_per_s: float
    eta_s: float
    peak_memory_bytes: int
    metrics: dict[str, float] = Field(default_factory=dict)
    """The method's own numbers of this step."""


class Done(Frozen):
    """The run is finished."""

    kind: Literal["done"] = "done"
    result: TrainResult


class Failed(Frozen):
    """The run ended without an adapter, for a reason with a name."""

    kind: Literal["failed"] = "failed"
    failure: TrainFailure


Report = Annotated[Working | Step | Done | Failed, Field(discriminator="kind")]
_reports: TypeAdapter[Working | Step | Done | Failed] = TypeAdapter(Report)


def parse_report(line: str | bytes) -> Working | Step | Done | Failed | None:
    """One line of the trainer's output; None for a line that is not a report."""
    try:
        return _reports.validate_json(line)
    except ValidationError:
        return None


NUMBERS = ("loss", "grad_norm", "learning_rate", "tokens_per_s", "eta_s", "peak_memory_bytes")


def progress_of(report: Working | Step, last: Step | None = None) -> Progress:
    """The report as a progress event. A heartbeat repeats the numbers of the `last` step."""
    if isinstance(report, Step):
        message = f"step {report.step} of {report.steps}, loss {report.loss:.3f}"
        last = report
    else:
        message = report.message
    values = {name: float(getattr(last, name)) for name in NUMBERS} if last is not None else {}
    return Progress(
        stage=STAGE,
        message=message,
        done=report.step,
        total=report.steps or None,
        values=values
        | (last.metrics if last else {})
        | {"peak_memory_bytes": report.peak_memory_bytes},
    )


def ending_of(
    returncode: int,
    last: Done | Failed | None,
    *,
    step: int,
    cancelled: bool,
    stderr_tail: str,
) -> TrainResult | TrainFailure:
    """The ending as exit code, last report and our own doing tell it.

    `returncode` is negative where a signal ended the process.
    """
    if isinstance(last, Done) and returncode == ExitCode.DONE:
        return last.result
    if cancelled or returncode == ExitCode.CANCELLED:
        return TrainFailure(
            reason="cancelled",
            message=f"training was cancelled at step {step}; its checkpoint is kept",
            mend="submit the job again to resume from the checkpoint",
            step=step,
        )
    if isinstance(last, Failed):
        return last.failure
    if returncode < 0:
        return TrainFailure(
            reason="trainer_crashed",
            message=f"signal {-returncode} ended the trainer at step {step}",
            mend="it resumes from its last checkpoint; if the kernel killed it for memory, "
            "lower method.train.batch_size",
            step=step,
            retryable=True,
        )
    return TrainFailure(
        reason="trainer_crashed",
        message=f"the trainer ended with code {returncode}: {stderr_tail.strip()[-500:]}",
        mend="read the trainer's log in the work folder",
        step=step,
    )
