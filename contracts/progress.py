"""Progress: short-lived, best-effort news of work under way."""

from __future__ import annotations

from pydantic import Field

from contracts.base import Frozen


class Progress(Frozen):
    """Where a stage of a run stands."""

    stage: str
    """The service, or a part of it (`training`, `g3`)."""
    message: str
    done: float = Field(default=0, ge=0)
    total: float | None = Field(default=None, ge=0)
    values: dict[str, float] = Field(default_factory=dict)
    """Named numbers: `loss`, `tokens_per_s`, `eta_s`, `peak_memory_bytes`."""
