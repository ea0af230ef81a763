"""Settings of the curation service, from `SLUICE_CURATION_*` environment variables."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MOST = 4
OWN, EACH = 384 << 20, 192 << 20
"""Bytes that curation itself takes, and each worker, which holds the libraries of redaction."""
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""What the container may take, or `max`."""


class CurationSettings(BaseSettings):
    """How much of the machine curation takes."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_CURATION_", extra="ignore", frozen=True)

    processes: int | None = Field(default=None, ge=1, le=256)
    """Worker processes for the rows of one dataset; 1: none. By default the cores, at most four,
    and no more than the container's memory has room for. What comes out does not depend on it."""

    @property
    def workers(self) -> int:
        return self.processes or min(MOST, len(os.sched_getaffinity(0)), _room())


def _room() -> int:
    """The workers that fit beside curation into the container's memory; at least one."""
    try:
        limit = MEMORY_LIMIT.read_text().strip()
    except OSError:
        return MOST
    return max(1, (int(limit) - OWN) // EACH) if limit.isdigit() else MOST
