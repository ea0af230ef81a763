"""Two runs side by side: what was asked differently, and what came of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.run import Run
from services.cli import numbers
from shared.bundles.chain import verdict_name


@dataclass(frozen=True, slots=True)
class Line:
    """One thing both runs have a word on. None where a run has none."""

    section: str
    name: str
    left: str | None
    right: str | None

    @property
    def differs(self) -> bool:
        return self.left != self.right


def compared(left: Run, right: Run) -> tuple[Line, ...]:
    """Everything known of either run: outcome, job, data, training, and every gate's numbers."""
    known = [dict(_known(run)) for run in (left, right)]
    return tuple(
        Line(section, name, known[0].get((section, name)), known[1].get((section, name)))
        for section, name in dict.fromkeys((*known[0], *known[1]))
    )


def _known(run: Run) -> Iterator[tuple[tuple[str, str], str]]:
    yield ("outcome", "status"), run.status
    if run.registered:
        yield ("outcome", "adapter"), run.registered.adapter_id
    if run.job:
        for name, value in _leaves(run.job.model_dump(mode="json", by_alias=True)):
            yield ("job", name), str(value)
    if run.dataset:
        for split, count in run.dataset.rows.items():
            yield ("data", f"{split} rows"), str(count)
    if trained := run.trained:
        yield ("training", "steps"), str(trained.steps)
        yield ("training", "train loss"), f"{trained.train_loss:.4g}"
        if trained.validation_loss is not None:
            yield ("training", "validation loss"), f"{trained.validation_loss:.4g}"
        yield ("training", "duration"), numbers.duration(trained.duration_s)
        yield ("training", "peak memory"), numbers.size(trained.peak_memory_bytes)
    for gate, judged in sorted(run.gates.items()):
        yield (gate, "verdict"), judged.verdict
        for comparison in judged.comparisons:
            yield (gate, comparison.metric), _without_name(numbers.comparison(comparison))
        for measurement in judged.measurements:
            yield (gate, measurement.name), _without_name(numbers.measurement(measurement))
    for stage in run.stages_judged:
        yield ("rollout", verdict_name(stage)), stage.verdict


def _without_name(text: str) -> str:
    return text.split(" ", 1)[1]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value
