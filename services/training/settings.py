<<<<<<< HEAD
"""Settings of the training service."""

from __future__ import annotations

import os
=======
"""Settings of the training service, from `SLUICE_TRAINING_*` beside the shared `SLUICE_*`."""

from __future__ import annotations

from pydantic import AliasChoices, Field
>>>>>>> training

from shared.settings import Settings


class TrainingSettings(Settings):
<<<<<<< HEAD
    """What training may use of its machine."""

    training_threads: int = os.cpu_count() or 1
    """CPU threads of the trainer process. Equal adapter digests need equal numbers."""
=======
    """How the trainer process runs on this machine."""

    threads: int = Field(
        default=2, ge=1, validation_alias=AliasChoices("SLUICE_TRAINING_THREADS", "threads")
    )
    """CPU threads. The same recipe gives the same weights digest for one number of threads."""
    cancel_grace_s: float = Field(
        default=120.0,
        gt=0,
        validation_alias=AliasChoices("SLUICE_TRAINING_CANCEL_GRACE_S", "cancel_grace_s"),
    )
    """A cancelled trainer finishes its step and saves within this, or is killed."""
>>>>>>> training
