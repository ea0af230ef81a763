"""G1, baseline calibration: what the frozen base does on the held-out items."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from contracts.measure import Measurement
from services.evaluation.gates.judgement import Judgement, success, validity
from shared.asking import Scored
from shared.scoring.refusal import refuses
from shared.statistics import proportion


def judge(base: Sequence[Scored], *, minimum_items: int, level: float) -> Judgement:
    """The base's profile. Inconclusive if the set is too small to calibrate against."""
    n = len(base)
    right = success("base_success", base, level)
    measurements = (
        right,
        validity("base_validity", base, level),
        proportion("base_refusals", sum(map(is_refusal, base)), n, level),
        proportion("base_cut_off", sum(s.cut_off for s in base), n, level),
        _median_latency(base),
    )
    if n < minimum_items:
        return Judgement(
            gate="G1",
            verdict="inconclusive",
            summary=f"{n} held-out items are fewer than the {minimum_items} a baseline needs.",
            measurements=measurements,
            remediation="more_items",
        )
    return Judgement(
        gate="G1",
        verdict="passed",
        summary=f"The frozen base succeeds on {right.value:.1%} of {n} held-out items.",
        measurements=measurements,
    )


def is_refusal(scored: Scored) -> bool:
    """Whether the answer begins as refusals begin."""
    return refuses(scored.answer.text)


def _median_latency(scored: Sequence[Scored]) -> Measurement:
    latencies = [s.answer.latency_ms for s in scored]
    value = statistics.median(latencies) if latencies else 0.0
    return Measurement(name="base_latency_ms_p50", value=value, n=len(latencies))
