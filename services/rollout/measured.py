"""What a stage measured: every rate with its interval and n, and what its sample could show."""

from __future__ import annotations

from contracts.measure import Comparison, Measurement
from services.rollout.limits import Limits, rate_below
from services.rollout.stage import REFERENCE_OUTCOMES, ArmCounts, Window, percentile
from shared.statistics import compare_paired, compare_two_samples, percentile_ratio, proportion


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
    if not rate_below(limits.minimum_success, 0, n, limits.odds):
        return f"{outcomes}: too few to prove harm, even if every request had failed"
    shown = max(s for s in range(n + 1) if rate_below(limits.minimum_success, s, n, limits.odds))
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


def share(part: int, n: int) -> str:
    return f"{part} of {n} ({part / n:.1%})" if n else "of none"
