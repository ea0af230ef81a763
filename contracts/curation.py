"""Curation: governed rows in, an immutable dataset snapshot out."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from contracts.base import Digest, Event, Frozen, Problem, Service
from contracts.data import LineAgreement


class SynthesisRequested(Event):
    """The curated seeds are ready and the job asks for synthetic rows."""

    service: ClassVar[Service] = Service.CURATION
    fact: ClassVar[str] = "synthesis_requested"
    seeds: Digest
    """JSON Lines of curated training rows: licensed, redacted, de-duplicated."""
    rows: int = Field(ge=1)


class DatasetCurated(Event):
    """A dataset snapshot exists. `train` and `validation` are JSON Lines in the artifact store."""

    service: ClassVar[Service] = Service.CURATION
    fact: ClassVar[str] = "curated"
    card: Digest
    """The `DatasetCard`, canonical JSON. Its digest is the dataset's identity."""
    train: Digest
    validation: Digest | None
    rows: dict[str, int]


class CurationHalted(Event):
    """The data must not be trained on as it is."""

    service: ClassVar[Service] = Service.CURATION
    fact: ClassVar[str] = "halted"
    reason: Literal["licence", "unreadable", "too_few_rows", "agreement", "volatile_facts"]
    problems: tuple[Problem, ...]


class Dispute(Frozen):
    """A row whose raters differ."""

    item: str
    line: str
    disagreement: float = Field(ge=0, le=1)
    """Share of its pairs of labels that differ."""
    labels: dict[str, str]
    """Rater → label."""


class RecalibrationRequired(Event):
    """Raters do not agree on what is good: mend the rubric and label again, then submit (C2)."""

    service: ClassVar[Service] = Service.CURATION
    fact: ClassVar[str] = "recalibration_required"
    minimum_kappa: float
    lines: tuple[LineAgreement, ...] = Field(min_length=1)
    """The rubric's lines, the least agreed first."""
    disputes: tuple[Dispute, ...]
    """The rows that divide the raters most, on the lines below the minimum."""
    problems: tuple[Problem, ...]
