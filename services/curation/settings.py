"""Settings of the curation service, from `SLUICE_CURATION_*` environment variables."""

from __future__ import annotations

import os

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MOST = 4
"""Workers where nothing is said: each holds the libraries of redaction."""


class CurationSettings(BaseSettings):
    """How much of the machine curation takes."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_CURATION_", extra="ignore", frozen=True)

    processes: int | None = Field(default=None, ge=1, le=256)
    """Worker processes for the rows of one dataset; 1: none. By default the cores, at most four.
    What comes out does not depend on it."""

    @property
    def workers(self) -> int:
        return self.processes or min(MOST, len(os.sched_getaffinity(0)))
