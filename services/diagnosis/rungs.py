"""Which rungs can be measured for a job, and as which way of asking (D4).

A rung that serving can act out is run on the dev set. The others are named with the reason they
were not: a rung that was not measured is not a rung that failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from contracts.data import Row
from contracts.diagnosis import RungName, RungSkipped
from contracts.job import AdaptationJob
from shared.asking import AskOptions

EXEMPLARS = 3

_NOT_RUNNABLE: dict[RungName, str] = {
    "prompt_revision": "the job's system prompt is already the one that is measured",
    "harness_changes": "the harness around the model is the user's; nothing here can change it",
    "validators": "no validator with retry is configured",
    "retrieval": "the job names no documents to retrieve from",
    "memory": "the job names no user state to remember",
    "tools": "the job names no further tools",
    "routing": "the job names no second model to route to",
    "model_selection": "the job names no larger base",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A rung that is run: the base, asked another way."""

    rung: RungName
    options: AskOptions


def base_options(job: AdaptationJob) -> AskOptions:
    """How the frozen base is asked: greedy, with the job's own system prompt."""
    behaviour = job.behaviour
    return AskOptions(
        system_prompt=behaviour.system_prompt, max_tokens=behaviour.max_tokens, seed=0
    )


def trials(
    job: AdaptationJob, training: Sequence[Row], dev: Sequence[Row]
) -> tuple[list[Trial], list[RungSkipped]]:
    """The lighter rungs to run, in the ladder's order, and the others with their reasons."""
    base = base_options(job)
    run: list[Trial] = []
    skipped = [RungSkipped(rung=rung, reason=why) for rung, why in _NOT_RUNNABLE.items()]
    if shown := exemplars(training, dev):
        run.append(Trial(rung="few_shot", options=_with(base, exemplars=shown)))
    else:
        why = f"fewer than {EXEMPLARS} answered training rows share no group with a dev item"
        skipped.append(RungSkipped(rung="few_shot", reason=why))
    if job.behaviour.output_schema is not None:
        constrained = _with(base, response_schema=job.behaviour.output_schema)
        run.append(Trial(rung="structured_outputs", options=constrained))
    elif any(row.tools for row in dev):
        run.append(Trial(rung="structured_outputs", options=_with(base, constrain_calls=True)))
    else:
        why = "the job has no output schema and its rows no tools"
        skipped.append(RungSkipped(rung="structured_outputs", reason=why))
    return run, skipped


def exemplars(
    training: Sequence[Row], dev: Sequence[Row], count: int = EXEMPLARS
) -> tuple[Row, ...]:
    """`count` short answered training rows, each of its own group and none of a dev item's.

    Short ones cost the fewest prompt tokens; the choice does not look at any dev answer. Empty if
    there are not enough.
    """
    taken = {row.cluster for row in dev}
    shown: list[Row] = []
    for row in sorted(training, key=lambda r: (_length(r), r.id)):
        if row.target is not None and row.cluster not in taken:
            taken.add(row.cluster)
            shown.append(row)
        if len(shown) == count:
            return tuple(shown)
    return ()


def _length(row: Row) -> int:
    return sum(len(m.content) for m in row.messages) + len(row.target or "") + len(str(row.tools))


def _with(options: AskOptions, **changes: object) -> AskOptions:
    return replace(options, **changes)  # type: ignore[arg-type]  # the fields' own types
