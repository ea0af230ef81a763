"""From traces to causes: weigh each trace's signals, group alike failures, rank the causes.

The rules are data (`causes.yaml`). A trace's cause is the one whose signals weigh most; causes that
weigh alike keep the file's order, lightest intervention first. A trace without signals stays
undetermined: no evidence is not evidence for training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from contracts.failures import (
    CauseFinding,
    CauseName,
    Diagnosed,
    FailureCluster,
    FailureReport,
    Trace,
)
from shared.failures.evidence import TESTS
from shared.similarity.minhash import NearDuplicates
from shared.statistics import proportion

ALIKE = 0.25
"""Jaccard similarity of character 5-grams from which two failures of one cause belong together."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One observation that speaks for a cause."""

    name: str
    weight: float
    shows: Callable[[Trace], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One row of the specification's table, with its signals."""

    name: CauseName
    title: str
    mechanism: str
    intervention: str
    guardrail: str
    signals: tuple[Signal, ...]


@cache
def causes() -> tuple[Cause, ...]:
    """The causes of `causes.yaml`, in its order."""
    text = resources.files("shared.failures").joinpath("causes.yaml").read_text("utf-8")
    return tuple(
        Cause(
            name=row["cause"],
            title=row["title"],
            mechanism=row["mechanism"],
            intervention=row["intervention"],
            guardrail=row["guardrail"],
            signals=tuple(_signal(signal) for signal in row["signals"]),
        )
        for row in yaml.safe_load(text)
    )


def diagnose(trace: Trace) -> Diagnosed:
    """The cause of one trace."""
    weights: dict[CauseName, float] = {}
    shown: dict[CauseName, tuple[str, ...]] = {}
    for cause in causes():
        signals = [signal for signal in cause.signals if signal.shows(trace)]
        if signals:
            weights[cause.name] = sum(signal.weight for signal in signals)
            shown[cause.name] = tuple(dict.fromkeys(signal.name for signal in signals))
    ranked = sorted(weights, key=lambda name: -weights[name])
    if not ranked:
        return Diagnosed(trace=trace.id, cause=None)
    return Diagnosed(
        trace=trace.id,
        cause=ranked[0],
        signals=shown[ranked[0]],
        runner_up=ranked[1] if len(ranked) > 1 else None,
    )


def analyse(traces: Sequence[Trace]) -> FailureReport:
    """The ranked causes of a failure log. The same traces give the same report."""
    diagnosed = tuple(diagnose(trace) for trace in traces)
    found = [
        _finding(
            cause,
            [(t, d) for t, d in zip(traces, diagnosed, strict=True) if d.cause == cause.name],
            len(traces),
        )
        for cause in causes()
    ]
    return FailureReport(
        traces=len(traces),
        findings=tuple(sorted((f for f in found if f.clusters), key=lambda f: -f.share.value)),
        undetermined=tuple(d.trace for d in diagnosed if d.cause is None),
        diagnosed=diagnosed,
    )


def _finding(cause: Cause, members: list[tuple[Trace, Diagnosed]], total: int) -> CauseFinding:
    signals = Counter(name for _, diagnosed in members for name in diagnosed.signals)
    return CauseFinding(
        cause=cause.name,
        title=cause.title,
        share=proportion(cause.name, len(members), total),
        signals=dict(signals.most_common()),
        clusters=_clusters([trace for trace, _ in members]),
        mechanism=cause.mechanism,
        intervention=cause.intervention,
        guardrail=cause.guardrail,
    )


def _clusters(traces: Sequence[Trace]) -> tuple[FailureCluster, ...]:
    """Each trace joins the most similar earlier leader, or leads a cluster of its own."""
    leaders = NearDuplicates(ALIKE)
    members: dict[str, list[Trace]] = {}
    for trace in traces:
        text = " ".join(filter(None, (trace.request, trace.correction, trace.error)))
        near = leaders.find_or_add(trace.id, text)
        members.setdefault(near[0] if near else trace.id, []).append(trace)
    grouped = sorted(members.values(), key=lambda group: -len(group))
    return tuple(
        FailureCluster(example=group[0].request, traces=tuple(trace.id for trace in group))
        for group in grouped
    )


def _signal(row: dict[str, Any]) -> Signal:
    if "test" in row:
        return Signal(row["signal"], float(row["weight"]), TESTS[row["test"]])
    pattern = re.compile(row["pattern"], re.IGNORECASE | re.DOTALL)
    fields = tuple(row["fields"])

    def shows(trace: Trace) -> bool:
        return any(pattern.search(getattr(trace, field) or "") for field in fields)

    return Signal(row["signal"], float(row["weight"]), shows)
