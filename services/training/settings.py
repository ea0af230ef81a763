"""Settings of the training service."""

from __future__ import annotations

import os

from shared.settings import Settings


class TrainingSettings(Settings):
    """What training may use of its machine."""

    training_threads: int = os.cpu_count() or 1
    """CPU threads of the trainer process. Equal adapter digests need equal numbers."""
