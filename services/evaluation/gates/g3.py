"""G3, held-out target behaviour: the candidate does what it was trained for, by enough.

The gain over the frozen base on the same items must be at least the threshold with one-sided
confidence `level`, not just on average in this sample. Rows may name their slice in `meta.slice`:
slices are compared apart, and those that fell beyond chance (Holm) are named.
"""

from __future__ import annotations

from collections.abc import Sequence

from contracts.evaluation import Remediation
from contracts.measure import VerdictName
from services.evaluation.gates.judgement import (
    Judgement,
    against_threshold,
    changed_examples,
    same_items,
    success,
    told_slices,
    two_sided,
    validity,
)
from shared.asking import Scored
from shared.statistics import compare_paired, compare_slices


def judge(
    base: Sequence[Scored], candidate: Sequence[Scored], *, minimum_gain: float, level: float
) -> Judgement:
    """Raises PermanentError if the two sides answered different items."""
    same_items(base, candidate)
    compared = compare_paired(
        "success",
        [s.value for s in base],
        [s.value for s in candidate],
        [s.cluster for s in candidate],
        level=two_sided(level),
    )
    slices = compare_slices(
        "slice",
        [s.slice for s in base],
        [s.value for s in base],
        [s.value for s in candidate],
        [s.cluster for s in candidate],
        level=two_sided(level),
    )
    low, high = compared.interval.low, compared.interval.high
    verdict = against_threshold(low, high, minimum_gain) if candidate else "inconclusive"
    numbers = (
        f"{compared.baseline:.1%} → {compared.candidate:.1%} on {compared.n} items, gain "
        f"{_points(compared.difference)} [{_points(low)}, {_points(high)}]"
    )
    wanted = f"at least {_points(minimum_gain)} points"
    summary = {
        "passed": f"Success rose {numbers}: {wanted}.",
        "failed": f"Success went {numbers}: not {wanted}.",
        "inconclusive": f"Success went {numbers}: too few items to say whether it is {wanted}.",
    }[verdict]
    return Judgement(
        gate="G3",
        verdict=verdict,
        summary=summary + told_slices(slices, level),
        measurements=(
            success("base_success", base, level),
            success("candidate_success", candidate, level),
            validity("candidate_validity", candidate, level),
        ),
        comparisons=(compared, *slices),
        changed=changed_examples(base, candidate),
        remediation=_remediation(verdict, compared.difference),
    )


def _remediation(verdict: VerdictName, difference: float) -> Remediation:
    if verdict == "passed":
        return "none"
    if verdict == "inconclusive":
        return "more_items"
    return "retrain" if difference > 0 else "rescope"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
