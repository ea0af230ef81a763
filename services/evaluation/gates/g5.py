"""G5, general capability: the candidate has not forgotten what the base could do.

The same benchmark items are answered by both; decay is judged by a paired non-inferiority test with
a margin in percentage points (ERRATA 10). A sample that cannot show so small a decay is
inconclusive. Skills are compared apart as well: what fell beyond chance after Holm's correction is
named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.evaluation import ChangedExample, Remediation
from contracts.measure import Measurement, VerdictName
from services.evaluation.gates.judgement import EXAMPLES, Judgement, told_slices, two_sided
from shared.errors import PermanentError
from shared.statistics import compare_slices, mean_with_interval, non_inferior

_REMEDIATION: dict[VerdictName, Remediation] = {
    "passed": "none",
    "failed": "add_rehearsal",
    "inconclusive": "more_items",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkItem:
    """One benchmark item as the harness scored it."""

    task: str
    item: str
    skill: str
    """The part of the task it belongs to; the task itself where the task has no parts."""
    correct: float
    output: str = ""

    @property
    def id(self) -> str:
        return f"{self.task}/{self.item}"


def judge(
    base: Sequence[BenchmarkItem],
    candidate: Sequence[BenchmarkItem],
    *,
    maximum_decay: float,
    level: float,
) -> Judgement:
    """Raises PermanentError if the two logs hold different items."""
    if [item.id for item in base] != [item.id for item in candidate]:
        raise PermanentError(
            "the two benchmark logs hold different items",
            mend="Run both models over the same tasks and limit.",
        )
    result = non_inferior(
        "general_accuracy",
        [item.correct for item in base],
        [item.correct for item in candidate],
        margin=maximum_decay,
        level=level,
    )
    compared = result.comparison
    summary = (
        f"General accuracy {compared.baseline:.1%} → {compared.candidate:.1%} on {compared.n} items"
        f" ({100 * compared.difference:+.1f} points, at worst {100 * compared.interval.low:+.1f}; "
        f"{100 * maximum_decay:.1f} points may be lost)."
    )
    skills = compare_slices(
        "skill",
        [item.skill for item in base],
        [item.correct for item in base],
        [item.correct for item in candidate],
        level=two_sided(level),
    )
    summary += told_slices(skills, level)
    if result.verdict == "inconclusive" and compared.detectable is not None:
        summary += f" This sample can show {100 * compared.detectable:.1f} points."
    return Judgement(
        gate="G5",
        verdict=result.verdict,
        summary=summary,
        measurements=(*_by_skill("base", base, level), *_by_skill("candidate", candidate, level)),
        comparisons=(compared, *skills),
        changed=_changed(base, candidate),
        remediation=_REMEDIATION[result.verdict],
    )


def _by_skill(who: str, items: Sequence[BenchmarkItem], level: float) -> list[Measurement]:
    skills: dict[str, list[float]] = {}
    for item in items:
        skills.setdefault(item.skill, []).append(item.correct)
    return [
        mean_with_interval(f"{who}:{skill}", values, level=two_sided(level))
        for skill, values in skills.items()
    ]


def _changed(
    base: Sequence[BenchmarkItem], candidate: Sequence[BenchmarkItem]
) -> tuple[ChangedExample, ...]:
    pairs = [(b, c) for b, c in zip(base, candidate, strict=True) if b.correct != c.correct]
    pairs.sort(key=lambda pair: pair[1].correct - pair[0].correct)
    return tuple(
        ChangedExample(item=c.id, base=b.correct, candidate=c.correct, output=c.output)
        for b, c in pairs[:EXAMPLES]
    )
