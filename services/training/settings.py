"""Settings of the training service, `SLUICE_TRAINING_*`."""

from __future__ import annotations

from pydantic import Field

from shared.settings import Settings


class TrainingSettings(Settings):
    """How the trainer process runs on this machine."""

    training_threads: int = Field(default=2, ge=1)
    """CPU threads of each trainer process. The same recipe gives the same weights digest for one
    number of threads and processes."""
    training_processes: int = Field(default=1, ge=1)
    """Processes that share a training's batches, by data parallelism: on GPUs, one for each. Where
    a batch is no multiple of it, as many as divide it; PPO takes one. With the variables of
    `accelerate launch` for FSDP in its environment, they hold the weights in shards."""
    training_cancel_grace_s: float = Field(default=120.0, gt=0)
    """A cancelled trainer finishes its step and saves within this, or is killed."""
