"""Synthesis: verified rows from teachers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from contracts.base import Digest, Event, Service


class RowsSynthesized(Event):
    """Synthetic rows exist; each carries its `Origin`. Zero rows is an honest outcome."""

    service: ClassVar[Service] = Service.SYNTHESIS
    fact: ClassVar[str] = "synthesized"
    rows: Digest
    """JSON Lines of `Row`."""
    requested: int
    accepted: int
    rejected: dict[str, int] = Field(default_factory=dict)
    """Reason → count."""
    distinct_2: float
    """Distinct bigrams over all bigrams of the accepted requests (S3)."""
