"""Rollout: shadow, canary stages, promotion or rollback, each decided on live outcomes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from contracts.base import Event, Service
from contracts.measure import Comparison, Measurement, VerdictName

StageName = Literal["shadow", "canary"]


class StageStarted(Event):
    """Traffic of `deployment` is now split this way. Serving obeys the newest of these facts."""

    service: ClassVar[Service] = Service.ROLLOUT
    fact: ClassVar[str] = "stage_started"
    deployment: str
    adapter_id: str
    stage: StageName
    percent: int = Field(ge=0, le=100)
    """Share of conversations the candidate answers; 0 in shadow, where it only mirrors."""
    since: int = Field(ge=0)
    """Outcomes count from this sequence of the TELEMETRY stream on."""
    outcomes: int | None = None
    """How many outcomes of the candidate the stage collects."""
    requests: int | None = None
    """About how many requests of the deployment that takes."""
    detects: str = ""
    """What so many outcomes can show, in words: a pass is not to be read as more."""

    @property
    def label(self) -> str:
        return "shadow" if self.stage == "shadow" else f"canary {self.percent}%"


class StageJudged(Event):
    """A stage's verdict on live outcomes (G8 for shadow, G9 for canary)."""

    service: ClassVar[Service] = Service.ROLLOUT
    fact: ClassVar[str] = "stage_judged"
    deployment: str
    adapter_id: str
    stage: StageName
    percent: int
    verdict: VerdictName
    summary: str
    measurements: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()


class RolledBack(Event):
    """The deployment answers from `to` again; the candidate serves nothing."""

    service: ClassVar[Service] = Service.ROLLOUT
    fact: ClassVar[str] = "rolled_back"
    deployment: str
    adapter_id: str
    to: str
    """An adapter id, or `base`."""
    reason: str
    mend: str


class RolloutHeld(Event):
    """The rollout waits at its present share (no traffic, or a manual hold)."""

    service: ClassVar[Service] = Service.ROLLOUT
    fact: ClassVar[str] = "held"
    deployment: str
    adapter_id: str
    reason: str
    mend: str


class RolloutCompleted(Event):
    """Every stage passed: the candidate answers all of the deployment's traffic."""

    service: ClassVar[Service] = Service.ROLLOUT
    fact: ClassVar[str] = "completed"
    deployment: str
    adapter_id: str
    replaced: str
    """What served before: an adapter id, or `base`."""
