"""G4, structured output and tools: the candidate's answers parse and satisfy their schema.

Judged without constrained decoding, so that constraints stay a safety net and do not hide a model
that has lost its format; unless the job serves the adapter under constraints (`constrained`).

Broken requests are measured beside it: how many calls hold values that the request no longer names
(invented), and how many requests wrapped in noise are still answered right (recovered). Invention
is judged where the policy has a bound for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from contracts.evaluation import ChangedExample, Remediation
from contracts.measure import VerdictName
from services.evaluation.gates.judgement import (
    EXAMPLES,
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


@dataclass(frozen=True, slots=True)
class Handled:
    """One broken request and what the candidate made of it."""

    item: str
    lossy: bool
    """Values are missing from the request; otherwise it only lies in noise."""
    invented: bool
    right: bool
    output: str = ""


def judge(
    base: Sequence[Scored],
    candidate: Sequence[Scored],
    *,
    minimum_validity: float,
    level: float,
    constrained: bool = False,
    broken_requests: Sequence[Handled] = (),
    maximum_invented: float | None = None,
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
    judged = Judgement(
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
    return _with_broken(judged, broken_requests, maximum_invented, level)


def _with_broken(
    judged: Judgement, seen: Sequence[Handled], maximum: float | None, level: float
) -> Judgement:
    """The verdict with what became of broken requests."""
    lossy, noisy = [h for h in seen if h.lossy], [h for h in seen if not h.lossy]
    if not lossy:
        return judged
    invented = proportion(
        "invented_values", sum(h.invented for h in lossy), len(lossy), two_sided(level)
    )
    recovered = proportion(
        "recovered_from_noise", sum(h.right for h in noisy), len(noisy), two_sided(level)
    )
    told = (
        f" Of {len(lossy)} requests that had lost values {sum(h.invented for h in lossy)} were "
        f"answered with invented ones; of {len(noisy)} in nested noise "
        f"{sum(h.right for h in noisy)} were answered right."
    )
    judged = replace(
        judged,
        summary=judged.summary + told,
        measurements=(*judged.measurements, invented, recovered),
    )
    if maximum is None or invented.interval is None:
        return judged
    # Turned round, since here less is better.
    found = against_threshold(1 - invented.interval.high, 1 - invented.interval.low, 1 - maximum)
    if found == "passed" or judged.verdict == "failed":
        return judged
    return replace(
        judged,
        verdict=found,
        summary=judged.summary + f" At most {maximum:.0%} may be.",
        changed=tuple(
            ChangedExample(item=h.item, base=1.0, candidate=0.0, output=h.output[:500])
            for h in lossy
            if h.invented
        )[:EXAMPLES],
        remediation="rescope" if found == "failed" else "more_items",
    )
