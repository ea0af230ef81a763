"""What a failed gate changes in the job, where that can be carried out without a person (G11).

| gate | what was found | the next attempt |
|---|---|---|
| G5 | general capability was lost | rehearses more, and after that trains at half the rank |
| G6 | refusals were lost, or harmless requests refused | learns (more) contrast pairs |
| G7 | training rows came back out | trains without these rows |
| G4 | answers break their schema | answers under constrained decoding |

All other remediations need new data or a person's word, and end the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from contracts.diagnosis import Replan, RunAccepted
from contracts.evaluation import GateJudged, Remediation
from contracts.governance import MOST_CONTRAST_PAIRS
from contracts.job import AdaptationJob
from contracts.run import Run

SMALLEST_RANK = 2
MOST_REHEARSAL = 0.5
FEWEST_CONTRAST_PAIRS = 24


class Change(NamedTuple):
    """What the next attempt does otherwise."""

    job: AdaptationJob
    remediation: str
    said: str
    """The field of the job, its old and its new value."""


def next_attempt(run: Run, judged: GateJudged) -> RunAccepted | None:
    """The next attempt of a run that this verdict ended; None if a person must decide.

    The job's digest stays: it names what the user submitted.
    """
    job = run.job
    if job is None or run.job_digest is None or run.status != "failed":
        return None
    if judged.verdict != "failed" or run.attempt >= job.gates.attempts:
        return None
    for way in _WAYS.get(judged.remediation, ()):
        change = way(job, judged)
        if change is not None:
            return RunAccepted(
                job=change.job,
                job_digest=run.job_digest,
                attempt=run.attempt + 1,
                replan=Replan(
                    gate=judged.gate,
                    remediation=change.remediation,
                    change=change.said,
                    candidate=judged.candidate,
                ),
            )
    return None


def _more_rehearsal(job: AdaptationJob, _judged: GateJudged) -> Change | None:
    """Doubles the share of general rows. Without a share all of them are in the mix already."""
    share = job.curation.rehearsal_share
    if share is None or share >= MOST_REHEARSAL or all(s.role != "rehearsal" for s in job.data):
        return None
    more = min(MOST_REHEARSAL, round(2 * share, 4))
    return _curated(
        job, "add_rehearsal", f"rehearsal_share {share:g} → {more:g}", rehearsal_share=more
    )


def _lower_rank(job: AdaptationJob, _judged: GateJudged) -> Change | None:
    lora = job.method.lora
    if lora.r // 2 < SMALLEST_RANK:
        return None
    lower = lora.model_copy(update={"r": lora.r // 2, "alpha": max(1, lora.alpha // 2)})
    method = job.method.model_copy(update={"lora": lower})
    said = f"method.lora.r {lora.r} → {lower.r}"
    return Change(job.model_copy(update={"method": method}), "lower_rank", said)


def _contrast_pairs(job: AdaptationJob, _judged: GateJudged) -> Change | None:
    """Refusals of harmful requests, each with a harmless twin that is answered."""
    pairs = job.curation.contrast_pairs
    more = min(MOST_CONTRAST_PAIRS, max(FEWEST_CONTRAST_PAIRS, 2 * pairs))
    if more <= pairs:
        return None
    return _curated(
        job, "add_contrast_pairs", f"contrast_pairs {pairs} → {more}", contrast_pairs=more
    )


def _without_what_came_out(job: AdaptationJob, judged: GateJudged) -> Change | None:
    """Withholds the rows that G7 saw again. Where it named none, a person must look."""
    before = job.curation.withheld_rows
    named = tuple(sorted({c.item for c in judged.changed} - set(before)))
    if not named:
        return None
    said = f"withheld_rows {len(before)} → {len(before) + len(named)}: {', '.join(named)}"
    return _curated(job, "redact", said, withheld_rows=(*before, *named))


def _constraints(job: AdaptationJob, _judged: GateJudged) -> Change | None:
    if job.behaviour.constrained:
        return None
    behaviour = job.behaviour.model_copy(update={"constrained": True})
    changed = job.model_copy(update={"behaviour": behaviour})
    return Change(changed, "enable_constraints", "behaviour.constrained false → true")


def _curated(job: AdaptationJob, remediation: str, said: str, **changes: object) -> Change:
    curation = job.curation.model_copy(update=changes)
    return Change(job.model_copy(update={"curation": curation}), remediation, f"curation.{said}")


_WAYS: dict[Remediation, tuple[Callable[[AdaptationJob, GateJudged], Change | None], ...]] = {
    "add_rehearsal": (_more_rehearsal, _lower_rank),
    "lower_rank": (_lower_rank,),
    "safety_review": (_contrast_pairs,),
    "redact": (_without_what_came_out,),
    "enable_constraints": (_constraints,),
}
"""The ways in the order in which they are tried."""
