"""The verdict: from measured rungs to train, decline, or an evaluation gap. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contracts.base import Problem
from contracts.data import Row
from contracts.diagnosis import Diagnosis, RungName, RungResult
from contracts.job import Evaluation
from shared.asking import Answer
from shared.scoring import Score
from shared.statistics import compare_paired, mean_with_interval

REPEATED = 8
"""Dev items asked twice to see whether the baseline is stable (D5)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One way of asking, on every dev row."""

    rows: Sequence[Row]
    answers: Sequence[Answer]
    scores: Sequence[Score]

    @property
    def values(self) -> list[float]:
        return [score.value for score in self.scores]

    @property
    def prompt_tokens(self) -> float:
        return sum(a.prompt_tokens for a in self.answers) / len(self.answers)

    @property
    def latency_ms(self) -> float:
        ordered = sorted(answer.latency_ms for answer in self.answers)
        return ordered[len(ordered) // 2]


def too_few_items(sets: Mapping[str, int], evaluation: Evaluation) -> list[Problem]:
    """D5: the evaluation sets that cannot carry a baseline."""
    return [
        Problem(
            where=f"evaluation.{name}",
            problem=f"has {count} items; a stable baseline needs {evaluation.minimum_items}",
            mend="add items, or lower evaluation.minimum_items and accept wider intervals",
        )
        for name, count in sets.items()
        if count < evaluation.minimum_items
    ]


def unstable(first: Sequence[str], second: Sequence[str], rows: Sequence[Row]) -> list[Problem]:
    """D5: the rows whose greedy answer changed when asked again."""
    changed = [r.id for r, a, b in zip(rows, first, second, strict=True) if a != b]
    if not changed:
        return []
    return [
        Problem(
            where="evaluation.dev",
            problem=f"{len(changed)} of {len(rows)} greedy answers changed when asked again: "
            + ", ".join(changed[:5]),
            mend="make serving deterministic (one engine version, one precision) before measuring",
        )
    ]


def rung_result(rung: RungName, asked: Asked, base: Asked, target: float) -> RungResult:
    """What `rung` adds to the base."""
    clusters = [row.cluster for row in asked.rows]
    success = mean_with_interval("success", asked.values, clusters)
    return RungResult(
        rung=rung,
        success=success,
        against_base=compare_paired("success", base.values, asked.values, clusters),
        added_prompt_tokens=asked.prompt_tokens - base.prompt_tokens,
        latency_ms=asked.latency_ms,
        reaches_target=success.value >= target,
    )


def sufficient(diagnosis: Diagnosis) -> RungName | None:
    """The lightest rung that reaches the target; `no_adaptation` if the base itself does."""
    if diagnosis.base.value >= diagnosis.target:
        return "no_adaptation"
    return next((r.rung for r in diagnosis.rungs if r.reaches_target), None)
