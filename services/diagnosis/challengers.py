"""Challengers: the lighter rungs that can be run, as ways of asking the frozen base.

Each is measured on the dev set, paired with the base asked plainly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from contracts.data import Row
from contracts.diagnosis import RungName, RungSkipped
from contracts.job import AdaptationJob
from services.diagnosis.ladder import Rung, ladder
from shared.asking import AskOptions

EXEMPLARS = 3
NEEDS_EXEMPLARS = "no training row is free of the evaluation sets' groups"
NEEDS_SCHEMA = "neither the rows' tools nor the behaviour's output_schema says what to constrain to"


def plain(job: AdaptationJob) -> AskOptions:
    """The base as it is asked today: greedy, unconstrained."""
    return AskOptions(
        system_prompt=job.behaviour.system_prompt, max_tokens=job.behaviour.max_tokens
    )


def challengers(
    job: AdaptationJob, training: Sequence[Row], held: Sequence[Row]
) -> tuple[dict[RungName, AskOptions], tuple[RungSkipped, ...]]:
    """The rungs to run, lightest first, and why the others are not.

    `held` are the rows of every evaluation set: no exemplar shares a group with one.
    """
    runnable: dict[RungName, AskOptions] = {}
    skipped: list[RungSkipped] = []
    for rung in ladder():
        if rung.trains or rung.rung == "no_adaptation":
            continue
        options = _build(rung, job, training, held)
        if isinstance(options, AskOptions):
            runnable[rung.rung] = options
        else:
            skipped.append(RungSkipped(rung=rung.rung, reason=options))
    return runnable, tuple(skipped)


def _build(
    rung: Rung, job: AdaptationJob, training: Sequence[Row], held: Sequence[Row]
) -> AskOptions | str:
    if rung.runs is None:
        return rung.why
    return _BUILDERS[rung.runs](job, training, held)


def _few_shot(job: AdaptationJob, training: Sequence[Row], held: Sequence[Row]) -> AskOptions | str:
    chosen = exemplars(training, held)
    if not chosen:
        return NEEDS_EXEMPLARS
    return AskOptions(
        system_prompt=job.behaviour.system_prompt,
        max_tokens=job.behaviour.max_tokens,
        exemplars=chosen,
    )


def _structured_outputs(
    job: AdaptationJob, training: Sequence[Row], held: Sequence[Row]
) -> AskOptions | str:
    schema = job.behaviour.output_schema
    calls = all(row.tools for row in held)
    if schema is None and not calls:
        return NEEDS_SCHEMA
    return AskOptions(
        system_prompt=job.behaviour.system_prompt,
        max_tokens=job.behaviour.max_tokens,
        response_schema=schema,
        constrain_calls=schema is None,
    )


_BUILDERS: dict[str, Callable[[AdaptationJob, Sequence[Row], Sequence[Row]], AskOptions | str]] = {
    "few_shot": _few_shot,
    "structured_outputs": _structured_outputs,
}


def exemplars(
    training: Sequence[Row], held: Sequence[Row], count: int = EXEMPLARS
) -> tuple[Row, ...]:
    """`count` answered rows of the shorter half, no two of one group, none of a held-out group.

    The choice is by hash of the row id: the same rows give the same exemplars.
    """
    taken = {row.cluster for row in held}
    free = [row for row in training if row.target and row.cluster not in taken]
    free.sort(key=lambda row: sum(len(m.content) for m in row.messages) + len(str(row.tools)))
    shorter = free[: max(count, len(free) // 2)]
    shorter.sort(key=lambda row: hashlib.sha256(row.id.encode()).digest())
    chosen: dict[str, Row] = {}
    for row in shorter:
        chosen.setdefault(row.cluster, row)
    return tuple(chosen.values())[:count]
