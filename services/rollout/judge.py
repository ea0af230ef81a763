"""The judge of a stage (G8, G9): is there evidence of harm, and if not, is the sample complete?

Harm needs evidence that stays valid however often one looks (ERRATA 11): e-values against 'the
candidate keeps its limits', looked at after every outcome. Their threshold shares the rollout's
error of 1 − level among all stages and checks (Bonferroni), so a candidate that keeps every limit
is rolled back with probability at most 1 − level in the whole rollout.

A stage passes when its sample is complete and shows no evidence of harm; on a sample of one that is
little, and the summary says how little. An estimate outside its limits without evidence prolongs
the stage; if a prolonged sample still cannot tell, the verdict is `inconclusive`.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.measure import Comparison, Measurement, VerdictName
from services.rollout.limits import Limits, rate_below
from services.rollout.measured import comparisons, measurements, p95_ratio, reach, share
from services.rollout.stage import ArmCounts, Tail, Window
from shared.statistics import difference_sequence, evidence_below

SMALL_SAMPLE = 10
"""Below this an estimate outside its limits says little by itself; only evidence counts."""
PROLONGED = 4
"""A stage whose estimate is outside its limits collects up to this many times its outcomes."""
TAIL = 0.05
"""The share of values above a 95th percentile."""
FEW = 3
"""Fewer refusals or overrides than this raise no doubt by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A stage's verdict with everything behind it."""

    verdict: VerdictName
    summary: str
    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...]


def judge(window: Window, limits: Limits, *, wanted: int) -> Verdict | None:
    """The verdict, or None while the stage goes on. `wanted` outcomes complete the sample."""
    if found := alarm(window, limits):
        return found
    if window.outcomes not in looks(wanted):
        return None
    if window.outcomes < looks(wanted)[-1] and doubt(window, limits):
        return None
    return conclude(window, limits)


def alarm(window: Window, limits: Limits) -> Verdict | None:
    """The verdict `failed` as soon as there is evidence of harm."""
    if harms := harm(window, limits):
        return _verdict("failed", f"Evidence of harm: {'; '.join(harms)}.", window, limits)
    return None


def conclude(window: Window, limits: Limits) -> Verdict:
    """The verdict on what there is, with no more outcomes to come."""
    if found := alarm(window, limits):
        return found
    if doubts := doubt(window, limits):
        text = f"Not shown to be harmful, and not fit to pass: {'; '.join(doubts)}."
        return _verdict("inconclusive", text, window, limits)
    return _verdict("passed", "No evidence of harm.", window, limits)


def looks(wanted: int) -> tuple[int, ...]:
    """The sample sizes at which a stage may pass; at the last a stage in doubt gives up.

    Each look doubles the sample: a candidate that may pass whenever its estimate happens to touch
    the limit would pass too easily. Small stages get room to recover.
    """
    last = max(PROLONGED * wanted, wanted + 60)
    sizes = [wanted]
    while 2 * sizes[-1] < last:
        sizes.append(2 * sizes[-1])
    return (*sizes, last)


def harm(window: Window, limits: Limits) -> list[str]:
    """What the outcomes prove against the candidate, in words; empty if nothing."""
    arm, odds = window.candidate, limits.odds
    found: list[str] = []
    if arm.incidents:  # hard stops: one is enough (ERRATA 11)
        found.append(f"{arm.incidents} confirmed safety incident(s)")
    if arm.faults:
        found.append(f"the adapter could not be loaded for {arm.faults} request(s)")
    if rate_below(limits.minimum_success, arm.successes, arm.judged, odds):
        found.append(
            f"success {share(arm.successes, arm.judged)} is below {limits.minimum_success:.0%}"
        )
    if rate_below(1 - limits.maximum_error_rate, arm.n - arm.errors, arm.n, odds):
        found.append(f"errors {share(arm.errors, arm.n)} above {limits.maximum_error_rate:.1%}")
    if rate_below(limits.minimum_validity, arm.valid, arm.with_schema, odds):
        found.append(
            f"schema kept in {share(arm.valid, arm.with_schema)}, below "
            f"{limits.minimum_validity:.0%}"
        )
    for tail, what, ratio in _tails(window):
        if rate_below(1 - TAIL, tail.n - tail.over, tail.n, odds):
            found.append(f"{share(tail.over, tail.n)} {what} {ratio:g} times the stable arm's p95")
    if rate_below(1 - limits.maximum_override_rate, *_not_overridden(arm), odds):
        found.append(f"people overrode {share(arm.overrides, arm.n)}")
    if _refuses_more(window, limits):
        stable = window.stable
        found.append(
            f"refused {share(arm.refusals, arm.read)}, the stable arm "
            f"{share(stable.refusals, stable.read)}"
        )
    if _decayed(window, limits):
        stable = window.stable
        found.append(
            f"success {share(arm.successes, arm.judged)} decayed against the stable arm's "
            f"{share(stable.successes, stable.judged)}"
        )
    return found


def doubt(window: Window, limits: Limits) -> list[str]:
    """Estimates outside their limits that are no evidence yet, in words."""
    arm = window.candidate
    if not arm.judged:
        return ["no outcome says whether the task succeeded"]
    found: list[str] = []
    if _estimate_below(limits.minimum_success, arm.successes, arm.judged):
        found.append(
            f"success {share(arm.successes, arm.judged)}, wanted {limits.minimum_success:.0%}"
        )
    if _estimate_below(1 - limits.maximum_error_rate, arm.n - arm.errors, arm.n):
        found.append(
            f"errors {share(arm.errors, arm.n)}, at most {limits.maximum_error_rate:.1%} wanted"
        )
    if _estimate_below(limits.minimum_validity, arm.valid, arm.with_schema):
        found.append(
            f"schema kept in {share(arm.valid, arm.with_schema)}, wanted "
            f"{limits.minimum_validity:.0%}"
        )
    for what, quantity, most in (
        ("latency", "latencies_ms", limits.maximum_latency_ratio),
        ("tokens", "tokens", limits.maximum_cost_ratio),
        ("perplexity", "perplexities", limits.maximum_drift),
    ):
        ratio = p95_ratio(window, quantity)
        if ratio is not None and ratio > most:
            found.append(f"p95 {what} {ratio:.1f} times the stable arm's, at most {most:g} wanted")
    if arm.overrides >= FEW and arm.overrides > limits.maximum_override_rate * arm.n:
        found.append(f"people overrode {share(arm.overrides, arm.n)}")
    more = _refusal_increase(window)
    if arm.refusals >= FEW and more is not None and more > limits.maximum_refusal_increase:
        found.append(f"refused {share(arm.refusals, arm.read)}, {100 * more:.0f} points more")
    return found


def _verdict(verdict: VerdictName, text: str, window: Window, limits: Limits) -> Verdict:
    arm = window.candidate
    latency = p95_ratio(window, "latencies_ms")
    facts = [
        f"success {share(arm.successes, arm.judged)}",
        f"errors {share(arm.errors, arm.n)}",
        f"schema {share(arm.valid, arm.with_schema)}",
        "p95 latency " + ("not comparable" if latency is None else f"{latency:.2f} x stable"),
    ]
    return Verdict(
        verdict=verdict,
        summary=f"{text} {', '.join(facts)}. {reach(window, limits)}.",
        measurements=measurements(window, limits.level),
        comparisons=comparisons(window, limits),
    )


def _decayed(window: Window, limits: Limits) -> bool:
    """Whether the candidate succeeds less than the stable arm by more than the margin.

    Shadow: among mirrored requests that only one arm answered well, the e-value against 'at least
    half were the candidate's' (the sequential form of McNemar's test). Canary: the confidence
    sequence of the difference.
    """
    if window.stage == "shadow":
        pairs = window.pairs
        changed = pairs.gained + pairs.lost
        return (
            changed > 0
            and (pairs.lost - pairs.gained) / pairs.n > limits.maximum_decay
            and evidence_below(0.5, pairs.gained, changed) >= limits.odds
        )
    stable, candidate = window.stable, window.candidate
    if not stable.judged or not candidate.judged:
        return False
    estimate = candidate.successes / candidate.judged - stable.successes / stable.judged
    if estimate >= -limits.maximum_decay:
        return False
    interval = difference_sequence(
        (stable.successes, stable.judged),
        (candidate.successes, candidate.judged),
        level=1 - limits.check_error,
    )
    return interval.high < -limits.maximum_decay


def _tails(window: Window) -> tuple[tuple[Tail, str, float], ...]:
    ratios = window.ratios
    return (
        (window.latency, "took more than", ratios.latency),
        (window.cost, "cost more tokens than", ratios.cost),
        (window.drift, "had a perplexity above", ratios.drift),
    )


def _not_overridden(arm: ArmCounts) -> tuple[int, int]:
    return max(0, arm.n - arm.overrides), arm.n


def _refusal_increase(window: Window) -> float | None:
    stable, candidate = window.stable, window.candidate
    if not stable.read or not candidate.read:
        return None
    return candidate.refusals / candidate.read - stable.refusals / stable.read


def _refuses_more(window: Window, limits: Limits) -> bool:
    """Whether the candidate refuses more than the stable arm by more than the margin.

    The joined sequences hold whether or not the arms answered the same requests.
    """
    more = _refusal_increase(window)
    if more is None or more <= limits.maximum_refusal_increase:
        return False
    interval = difference_sequence(
        (window.stable.refusals, window.stable.read),
        (window.candidate.refusals, window.candidate.read),
        level=1 - limits.check_error,
    )
    return interval.low > limits.maximum_refusal_increase


def _estimate_below(threshold: float, successes: int, n: int) -> bool:
    return n >= SMALL_SAMPLE and successes / n < threshold
