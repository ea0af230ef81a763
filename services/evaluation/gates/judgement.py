"""What a gate says, before it is bound to a candidate and becomes the event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.base import Digest
from contracts.evaluation import ChangedExample, GateJudged, Remediation
from contracts.job import GateId
from contracts.measure import Comparison, Measurement, VerdictName
from shared.asking import Scored
from shared.errors import PermanentError
from shared.statistics import fallen, mean_with_interval

EXAMPLES = 20
_OUTPUT_CHARACTERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One gate's verdict with its numbers."""

    gate: GateId
    verdict: VerdictName
    summary: str
    measurements: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    changed: tuple[ChangedExample, ...] = ()
    remediation: Remediation = "none"

    def event(self, *, candidate: Digest, evidence: Digest | None, duration_s: float) -> GateJudged:
        """The fact for the run log."""
        return GateJudged(
            gate=self.gate,
            candidate=candidate,
            verdict=self.verdict,
            summary=self.summary,
            measurements=self.measurements,
            comparisons=self.comparisons,
            changed=self.changed,
            remediation=self.remediation,
            evidence=evidence,
            duration_s=duration_s,
        )


def two_sided(level: float) -> float:
    """The level of the two-sided interval whose ends are one-sided bounds at `level`."""
    return 2 * level - 1


def against_threshold(low: float, high: float, threshold: float) -> VerdictName:
    """Passed above the threshold for sure, failed below it for sure, else inconclusive."""
    if low >= threshold:
        return "passed"
    return "failed" if high < threshold else "inconclusive"


def success(name: str, scored: Sequence[Scored], level: float) -> Measurement:
    """The mean score, clustered where items share a source."""
    values, clusters = [s.value for s in scored], [s.cluster for s in scored]
    return mean_with_interval(name, values, clusters, level=two_sided(level))


def validity(name: str, scored: Sequence[Scored], level: float) -> Measurement:
    """The share of answers that parse and satisfy their schema."""
    values, clusters = [float(s.score.valid) for s in scored], [s.cluster for s in scored]
    return mean_with_interval(name, values, clusters, level=two_sided(level))


def told_slices(slices: Sequence[Comparison], level: float) -> str:
    """A sentence on the slices that fell beyond chance; empty for none."""
    worst = [
        f"{c.metric.partition(':')[2]} {c.baseline:.0%} → {c.candidate:.0%} "
        f"(p = {c.adjusted_p:.2g})"
        for c in fallen(slices, level=level)
    ]
    return f" Of {len(slices)} slices fell (Holm): {', '.join(worst)}." if worst else ""


def changed_examples(
    base: Sequence[Scored], candidate: Sequence[Scored]
) -> tuple[ChangedExample, ...]:
    """Items whose score changed, the worst first; gains fill what room the losses leave."""
    pairs = [(b, c) for b, c in zip(base, candidate, strict=True) if b.value != c.value]
    pairs.sort(key=lambda pair: pair[1].value - pair[0].value)
    return tuple(
        ChangedExample(
            item=c.item,
            base=b.value,
            candidate=c.value,
            output=c.answer.text[:_OUTPUT_CHARACTERS],
        )
        for b, c in pairs[:EXAMPLES]
    )


def same_items(base: Sequence[Scored], candidate: Sequence[Scored]) -> None:
    """Raises PermanentError unless both sides answered the same items in the same order."""
    if [s.item for s in base] != [s.item for s in candidate]:
        raise PermanentError(
            "base and candidate did not answer the same items",
            mend="Ask both about the same evaluation set.",
        )
