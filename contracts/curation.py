"""Curation: governed rows in, an immutable dataset snapshot out."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from contracts.base import Digest, Event, Problem, Service


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
