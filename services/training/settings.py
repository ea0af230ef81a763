"""Settings of the training service, `SLUICE_TRAINING_*`."""

from __future__ import annotations

from pydantic import Field

from shared.settings import Settings


class TrainingSettings(Settings):
    """How the trainer process runs on this machine."""

    training_threads: int = Field(default=2, ge=1)
    """CPU threads. The same recipe gives the same weights digest for one number of threads."""
    training_cancel_grace_s: float = Field(default=120.0, gt=0)
    """A cancelled trainer finishes its step and saves within this, or is killed."""
