"""What a failed gate changes in the job, where that can be carried out without a person (G11).

One branch is automatic: general capability was lost (G5), so the next attempt trains at half the
rank. All other remediations need new data or a person's word, and end the run.
"""

from __future__ import annotations

from contracts.diagnosis import Replan, RunAccepted
from contracts.evaluation import GateJudged
from contracts.run import Run

SMALLEST_RANK = 2
_LOWERS_RANK = frozenset({"lower_rank", "add_rehearsal"})


def next_attempt(run: Run, judged: GateJudged) -> RunAccepted | None:
    """The next attempt of a run that this verdict ended; None if a person must decide.

    The job's digest stays: it names what the user submitted.
    """
    job = run.job
    if job is None or run.job_digest is None or run.status != "failed":
        return None
    if judged.verdict != "failed" or judged.remediation not in _LOWERS_RANK:
        return None
    lora = job.method.lora
    if run.attempt >= job.gates.attempts or lora.r // 2 < SMALLEST_RANK:
        return None
    lower = lora.model_copy(update={"r": lora.r // 2, "alpha": max(1, lora.alpha // 2)})
    method = job.method.model_copy(update={"lora": lower})
    return RunAccepted(
        job=job.model_copy(update={"method": method}),
        job_digest=run.job_digest,
        attempt=run.attempt + 1,
        replan=Replan(
            gate=judged.gate,
            remediation="lower_rank",
            change=f"method.lora.r {lora.r} → {lower.r}",
            candidate=judged.candidate,
        ),
    )
