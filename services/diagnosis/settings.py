"""Settings of the diagnosis service."""

from __future__ import annotations

from shared.settings import Settings


class DiagnosisSettings(Settings):
    """Intake's limits."""

    read_files: bool = True
    """Whether a job may name files of this machine. Off where tenants do not own the machine."""
