"""G4, structured output and tools: the candidate's answers parse and satisfy their schema.

Judged without constrained decoding, so that constraints stay a safety net and do not hide a model
that has lost its format; unless the job serves the adapter under constraints (`constrained`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from contracts.evaluation import Remediation
from contracts.measure import VerdictName
from services.evaluation.gates.judgement import (
    Judgement,
    against_threshold,
    changed_examples,
    same_items,
    two_sided,
    validity,
)
from shared.asking import Scored
from shared.statistics import compare_paired, proportion

_REMEDIATION: dict[VerdictName, Remediation] = {
    "passed": "none",
    "failed": "enable_constraints",
    "inconclusive": "more_items",
}


def judge(
    base: Sequence[Scored],
    candidate: Sequence[Scored],
    *,
    minimum_validity: float,
    level: float,
    constrained: bool = False,
) -> Judgement:
    """Raises PermanentError if the two sides answered different items."""
    same_items(base, candidate)
    valid = validity("candidate_validity", candidate, level)
    low, high = (valid.interval.low, valid.interval.high) if valid.interval else (0.0, 1.0)
    verdict = against_threshold(low, high, minimum_validity) if candidate else "inconclusive"
    broken = [s for s in candidate if not s.score.valid]
    commonest = Counter(s.score.reason.split(":")[0] for s in broken).most_common(1)
    cause = f" Most often: {commonest[0][0]} ({commonest[0][1]})." if commonest else ""
    compared = compare_paired(
        "validity",
        [float(s.score.valid) for s in base],
        [float(s.score.valid) for s in candidate],
        [s.cluster for s in candidate],
        level=two_sided(level),
    )
    cut_off = proportion("candidate_cut_off", sum(s.cut_off for s in candidate), len(candidate))
    return Judgement(
        gate="G4",
        verdict=verdict,
        summary=(
            f"{len(candidate) - len(broken)} of {len(candidate)} answers are valid "
            f"{'under' if constrained else 'without'} constraints ({low:.1%} to {high:.1%}; "
            f"{minimum_validity:.0%} wanted).{cause}"
        ),
        measurements=(valid, cut_off),
        comparisons=(compared,),
        changed=changed_examples(base, candidate) if verdict != "passed" else (),
        remediation=_REMEDIATION[verdict],
    )
