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
    alarms: tuple[str, ...] = ()
    """What makes the set a monoculture, and what else a reader must know (S3)."""
    records: Digest | None = None
    """JSON Lines: sandbox runs, judges' scores and rationales, and rows awaiting adjudication."""
    adjudication: int = 0
    """Rows on which the judges diverge: not accepted, and in the records for a person to decide."""
    cost: float = 0.0
    """Of all answers, by the prices in the job; each is counted once, however often resumed."""
    tokens: int = 0
