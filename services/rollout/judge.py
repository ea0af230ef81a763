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

from contracts.job import AdaptationJob
from contracts.measure import Comparison, Measurement, VerdictName
from services.rollout.stage import REFERENCE_OUTCOMES, ArmCounts, Ratios, Tail, Window, percentile
from shared.statistics import (
    compare_paired,
    compare_two_samples,
    difference_sequence,
    evidence_below,
    percentile_ratio,
    proportion,
)

CHECKS = 9
"""Success, errors, schema, latency, cost, drift, refusals, overrides, decay."""
SMALL_SAMPLE = 10
"""Below this an estimate outside its limits says little by itself; only evidence counts."""
PROLONGED = 4
"""A stage whose estimate is outside its limits collects up to this many times its outcomes."""
TAIL = 0.05
"""The share of values above a 95th percentile."""
FEW = 3
"""Fewer refusals or overrides than this raise no doubt by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a candidate is held to while it sees live traffic."""

    minimum_success: float
    maximum_error_rate: float
    minimum_validity: float
    """Schema validity: what G4 admitted the candidate with."""
    maximum_latency_ratio: float
    maximum_decay: float
    """Success below the stable arm's by more than this, as a proportion."""
    maximum_cost_ratio: float = 1.5
    maximum_drift: float = 1.5
    maximum_refusal_increase: float = 0.05
    maximum_override_rate: float = 0.05
    level: float
    stages: int

    @classmethod
    def of(cls, job: AdaptationJob) -> Limits:
        policy = job.rollout
        return cls(
            minimum_success=policy.minimum_success,
            maximum_error_rate=policy.maximum_error_rate,
            minimum_validity=job.gates.minimum_validity,
            maximum_latency_ratio=policy.maximum_latency_ratio,
            maximum_decay=job.gates.maximum_decay,
            maximum_cost_ratio=policy.maximum_cost_ratio,
            maximum_drift=policy.maximum_drift,
            maximum_refusal_increase=policy.maximum_refusal_increase,
            maximum_override_rate=policy.maximum_override_rate,
            level=job.gates.level,
            stages=len(policy.stages) + 1,
        )

    @property
    def ratios(self) -> Ratios:
        return Ratios(
            latency=self.maximum_latency_ratio,
            cost=self.maximum_cost_ratio,
            drift=self.maximum_drift,
        )

    @property
    def check_error(self) -> float:
        """The error each check of each stage may spend."""
        return (1 - self.level) / (self.stages * CHECKS)

    @property
    def odds(self) -> float:
        """The e-value that counts as evidence."""
        return 1 / self.check_error


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
    if _rate_below(limits.minimum_success, arm.successes, arm.judged, odds):
        found.append(
            f"success {_share(arm.successes, arm.judged)} is below {limits.minimum_success:.0%}"
        )
    if _rate_below(1 - limits.maximum_error_rate, arm.n - arm.errors, arm.n, odds):
        found.append(f"errors {_share(arm.errors, arm.n)} above {limits.maximum_error_rate:.1%}")
    if _rate_below(limits.minimum_validity, arm.valid, arm.with_schema, odds):
        found.append(
            f"schema kept in {_share(arm.valid, arm.with_schema)}, below "
            f"{limits.minimum_validity:.0%}"
        )
    for tail, what, ratio in _tails(window):
        if _rate_below(1 - TAIL, tail.n - tail.over, tail.n, odds):
            found.append(f"{_share(tail.over, tail.n)} {what} {ratio:g} times the stable arm's p95")
    if _rate_below(1 - limits.maximum_override_rate, *_not_overridden(arm), odds):
        found.append(f"people overrode {_share(arm.overrides, arm.n)}")
    if _refuses_more(window, limits):
        stable = window.stable
        found.append(
            f"refused {_share(arm.refusals, arm.read)}, the stable arm "
            f"{_share(stable.refusals, stable.read)}"
        )
    if _decayed(window, limits):
        stable = window.stable
        found.append(
            f"success {_share(arm.successes, arm.judged)} decayed against the stable arm's "
            f"{_share(stable.successes, stable.judged)}"
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
            f"success {_share(arm.successes, arm.judged)}, wanted {limits.minimum_success:.0%}"
        )
    if _estimate_below(1 - limits.maximum_error_rate, arm.n - arm.errors, arm.n):
        found.append(
            f"errors {_share(arm.errors, arm.n)}, at most {limits.maximum_error_rate:.1%} wanted"
        )
    if _estimate_below(limits.minimum_validity, arm.valid, arm.with_schema):
        found.append(
            f"schema kept in {_share(arm.valid, arm.with_schema)}, wanted "
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
        found.append(f"people overrode {_share(arm.overrides, arm.n)}")
    more = _refusal_increase(window)
    if arm.refusals >= FEW and more is not None and more > limits.maximum_refusal_increase:
        found.append(f"refused {_share(arm.refusals, arm.read)}, {100 * more:.0f} points more")
    return found


def p95_ratio(window: Window, quantity: str) -> float | None:
    """Candidate p95 over stable p95; None while an arm is too small to have one."""
    candidate: list[float] = getattr(window.candidate, quantity)
    stable: list[float] = getattr(window.stable, quantity)
    if min(len(candidate), len(stable)) < REFERENCE_OUTCOMES:
        return None
    return percentile(candidate, 95) / percentile(stable, 95)


def reach(window: Window, limits: Limits) -> str:
    """What this sample could have shown, so that a pass is not read as more than it is (G9)."""
    text = detects(window.candidate.judged, limits)
    detectable = next((c.detectable for c in comparisons(window, limits)), None)
    if "or less" in text and detectable is not None and detectable < 1:
        text += (
            f", and a change of {100 * detectable:.0f} points against the stable arm (80 % power)"
        )
    return text


def detects(n: int, limits: Limits) -> str:
    """The worst success that `n` outcomes would not prove to be harm, in words."""
    outcomes = f"{n} outcome{'' if n == 1 else 's'}"
    if not _rate_below(limits.minimum_success, 0, n, limits.odds):
        return f"{outcomes}: too few to prove harm, even if every request had failed"
    shown = max(s for s in range(n + 1) if _rate_below(limits.minimum_success, s, n, limits.odds))
    if shown == 0:
        return f"{outcomes}: only a failure of every request would show"
    return f"{outcomes}: a success of {shown / n:.0%} or less would show"


def measurements(window: Window, level: float) -> tuple[Measurement, ...]:
    """Every rate with its interval and n, per arm; latencies; the ratio of the p95s."""
    found = [*_arm("candidate", window.candidate, level), *_arm("stable", window.stable, level)]
    fast, slow = window.stable.latencies_ms, window.candidate.latencies_ms
    if fast and slow:
        found.append(percentile_ratio("latency_p95_ratio", fast, slow, level=level))
    for name in ("tokens", "perplexities"):
        before, after = getattr(window.stable, name), getattr(window.candidate, name)
        if before and after:
            singular = {"tokens": "tokens", "perplexities": "perplexity"}[name]
            found.append(percentile_ratio(f"{singular}_p95_ratio", before, after, level=level))
    if window.stage == "shadow" and window.pairs.n:
        agreed = window.pairs.both + window.pairs.neither
        found.append(proportion("agreement", agreed, window.pairs.n, level))
    return tuple(found)


def comparisons(window: Window, limits: Limits) -> tuple[Comparison, ...]:
    """Success against the stable arm: paired in shadow, independent samples in a canary."""
    pairs, stable, candidate = window.pairs, window.stable, window.candidate
    if window.stage == "shadow":
        if not pairs.n:
            return ()
        cells = (
            [(1.0, 1.0)] * pairs.both
            + [(1.0, 0.0)] * pairs.lost
            + [(0.0, 1.0)] * pairs.gained
            + [(0.0, 0.0)] * pairs.neither
        )
        before, after = zip(*cells, strict=True)
        return (compare_paired("success", before, after, level=limits.level),)
    if not stable.judged or not candidate.judged:
        return ()
    return (
        compare_two_samples(
            "success",
            (stable.successes, stable.judged),
            (candidate.successes, candidate.judged),
            level=limits.level,
        ),
    )


def _verdict(verdict: VerdictName, text: str, window: Window, limits: Limits) -> Verdict:
    arm = window.candidate
    latency = p95_ratio(window, "latencies_ms")
    facts = [
        f"success {_share(arm.successes, arm.judged)}",
        f"errors {_share(arm.errors, arm.n)}",
        f"schema {_share(arm.valid, arm.with_schema)}",
        "p95 latency " + ("not comparable" if latency is None else f"{latency:.2f} x stable"),
    ]
    return Verdict(
        verdict=verdict,
        summary=f"{text} {', '.join(facts)}. {reach(window, limits)}.",
        measurements=measurements(window, limits.level),
        comparisons=comparisons(window, limits),
    )


def _arm(name: str, arm: ArmCounts, level: float) -> list[Measurement]:
    rates = [
        proportion(f"{name}_success", arm.successes, arm.judged, level),
        proportion(f"{name}_error_rate", arm.errors, arm.n, level),
        proportion(f"{name}_schema_validity", arm.valid, arm.with_schema, level),
    ]
    optional = (
        ("tool_call_validity", arm.tool_calls_valid, arm.tool_calls),
        ("refusal_rate", arm.refusals, arm.read),
        ("override_rate", min(arm.overrides, arm.n), arm.n if arm.overrides else 0),
    )
    rates += [proportion(f"{name}_{what}", k, n, level) for what, k, n in optional if n]
    if arm.tokens and arm.successes:
        cost = sum(arm.tokens) / arm.successes
        rates.append(Measurement(name=f"{name}_tokens_per_success", value=cost, n=arm.successes))
    if not arm.latencies_ms:
        return rates
    n = len(arm.latencies_ms)
    return rates + [
        Measurement(name=f"{name}_latency_p{q}_ms", value=arm.latency_ms(q), n=n) for q in (50, 95)
    ]


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


def _rate_below(threshold: float, successes: int, n: int, odds: float) -> bool:
    """Evidence that a rate is below `threshold`. A limit of 1 is broken by one failure."""
    if threshold >= 1:
        return successes < n
    if successes >= threshold * n:  # every likelihood ratio is at most 1
        return False
    return evidence_below(threshold, successes, n) >= odds


def _estimate_below(threshold: float, successes: int, n: int) -> bool:
    return n >= SMALL_SAMPLE and successes / n < threshold


def _share(part: int, n: int) -> str:
    return f"{part} of {n} ({part / n:.1%})" if n else "of none"
