"""The JSON twins of the pages: what a program sees of the console, described by OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from contracts.base import Frozen, Problem
from contracts.envelope import Recorded
from contracts.progress import Progress
from contracts.run import Run, Status
from services.console import story
from services.console.facts import sentence
from services.console.projection import Projection


class RunSummary(Frozen):
    """A row of the table of runs."""

    tenant: str
    run: str
    status: Status
    stage: story.StageName
    attempt: int
    adapter_id: str | None
    began: datetime | None
    changed: datetime | None


class StageView(Frozen):
    """One stage of the rail."""

    name: story.StageName
    state: story.StageState
    detail: str


class FactView(Frozen):
    """One fact of the log, with its whole body."""

    id: str
    cause: str
    at: datetime
    seq: int
    type: str
    service: str
    sentence: str
    data: dict[str, Any]


class EndingView(Frozen):
    """Why the run stands still."""

    title: str
    message: str
    mend: str
    problems: tuple[Problem, ...]


class RunStory(Frozen):
    """A run in full."""

    summary: RunSummary
    rail: tuple[StageView, ...]
    ending: EndingView | None
    verbs: tuple[story.Verb, ...]
    progress: tuple[Progress, ...]
    facts: tuple[FactView, ...]


class Accepted(Frozen):
    """A command was taken by the bus; the run's log will show what came of it."""

    run: str
    verb: story.Verb


def summary_of(run: Run) -> RunSummary:
    registered = run.registered
    return RunSummary(
        tenant=run.ref.tenant,
        run=run.ref.run,
        status=run.status,
        stage=story.current_stage(run),
        attempt=run.attempt,
        adapter_id=registered.adapter_id if registered else None,
        began=run.log[0].at if run.log else None,
        changed=run.log[-1].at if run.log else None,
    )


def fact_of(record: Recorded) -> FactView:
    return FactView(
        id=record.id,
        cause=record.cause,
        at=record.at,
        seq=record.seq,
        type=record.event.type_name(),
        service=record.event.producer(),
        sentence=sentence(record.event),
        data=record.event.model_dump(mode="json", by_alias=True),
    )


def story_of(run: Run, projection: Projection) -> RunStory:
    end = story.ending(run)
    return RunStory(
        summary=summary_of(run),
        rail=tuple(
            StageView(name=stage.name, state=stage.state, detail=stage.detail)
            for stage in story.rail(run)
        ),
        ending=EndingView(
            title=end.title, message=end.message, mend=end.mend, problems=end.problems
        )
        if end
        else None,
        verbs=story.verbs(run),
        progress=tuple(news.progress for news in projection.news(run.ref)),
        facts=tuple(fact_of(record) for record in run.log),
    )
