"""A deployment's history from the run log: what served when, who let it, why it changed (R5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, AdapterWithdrawn, CandidateRegistered
from contracts.rollout import RolledBack, RolloutCompleted, RolloutHeld, StageJudged, StageStarted
from contracts.subjects import RunRef

BASE = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One change, and what answers the deployment from then on."""

    at: datetime
    run: RunRef
    adapter_id: str
    what: str
    by: str
    """`a person`, an alert, or the service that decided."""
    why: str
    serves: str
    """The adapter users get, or `base`; with a canary's share where there is one."""


def history(records: Iterable[Recorded], deployment: str) -> Iterator[Line]:
    """The lines of one tenant's deployment, from its facts in log order."""
    stable, share = BASE, ""
    holds: set[str] = set()
    for record in records:
        event = record.event
        if getattr(event, "deployment", None) != deployment:
            continue
        by, why = _by(record, holds), ""
        match event:
            case CandidateRegistered():
                what, why = "registered", "every required gate passed"
            case StageStarted():
                what, why = f"{event.label} began", event.detects
                share = f" + {event.percent}% {event.adapter_id}" if event.percent else ""
            case StageJudged():
                what = f"{'shadow' if event.stage == 'shadow' else f'canary {event.percent}%'} "
                what, why = what + event.verdict, event.summary
            case RolloutHeld():
                what, why = "held", event.reason
                holds.add(record.id)
            case RolledBack():
                what, why, stable, share = "rolled back", event.reason, event.to, ""
            case RolloutCompleted():
                what, why = "rollout completed", "every stage passed"
                stable, share = event.adapter_id, ""
            case AdapterPromoted():
                what, why, stable = "promoted", "the chain is closed", event.adapter_id
            case AdapterWithdrawn():
                what, why = f"withdrawn ({event.kind})", event.reason
                if stable == event.adapter_id:
                    stable = event.to
                if share.endswith(event.adapter_id):
                    share = ""
            case _:
                continue
        yield Line(
            at=record.at,
            run=record.ref,
            adapter_id=event.adapter_id,
            what=what,
            by=by,
            why=why,
            serves=stable + share,
        )


def _by(record: Recorded, holds: set[str]) -> str:
    if record.cause.startswith("JOBS:") or record.cause in holds:
        return "a person"
    if isinstance(record.event, RolledBack) and ": alert " in record.event.reason:
        return "an alert"
    return str(record.event.producer())
