"""Which rungs can be measured for a job, and as which way of asking (D4).

A rung that serving can act out is run on the dev set. The others are named with the reason they
were not: a rung that was not measured is not a rung that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from contracts.data import Document, Row
from contracts.diagnosis import RungName, RungSkipped
from contracts.job import AdaptationJob
from services.diagnosis.retrieval import Index
from services.diagnosis.revisions import systematic
from shared.asking import AskOptions, Retry
from shared.scoring import validator_for

EXEMPLARS = 3

_NOT_RUNNABLE: dict[RungName, str] = {
    "harness_changes": "the harness around the model is the user's; nothing here can change it",
    "memory": "dev items carry no user state that a memory could hold",
    "tools": "tools are the application's to run; answers are judged without running any",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of asking the base."""

    options: AskOptions
    name: str = ""
    rewrite: Callable[[Row], Row] | None = None
    """What is asked in place of the row; the row's answer is judged as ever."""
    retry: Retry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A rung that is run, in one way or several."""

    rung: RungName
    ways: tuple[Way, ...]

    @property
    def larger(self) -> bool:
        """Whether the job's larger base is asked instead."""
        return self.rung == "model_selection"


def base_options(job: AdaptationJob) -> AskOptions:
    """How the frozen base is asked: greedy, with the job's own system prompt."""
    behaviour = job.behaviour
    return AskOptions(
        system_prompt=behaviour.system_prompt, max_tokens=behaviour.max_tokens, seed=0
    )


def trials(
    job: AdaptationJob,
    training: Sequence[Row],
    dev: Sequence[Row],
    documents: Sequence[Document] = (),
) -> tuple[list[Trial], list[RungSkipped]]:
    """The lighter rungs to run, in the ladder's order, and the others with their reasons.

    `documents` are the job's corpus. Routing is no trial: it is read off the answers of the base
    and the larger base (`services.diagnosis.routing`), once they are there.
    """
    found: dict[RungName, tuple[Way, ...] | str] = {
        "prompt_revision": _revisions(job),
        "few_shot": _few_shot(job, training, dev),
        "structured_outputs": _constrained(job, dev),
        "validators": _validated(job, dev),
        "retrieval": _retrieved(job, documents),
        "model_selection": _larger(job),
        **_NOT_RUNNABLE,
    }
    run = [Trial(rung=rung, ways=ways) for rung, ways in found.items() if isinstance(ways, tuple)]
    skipped = [
        RungSkipped(rung=rung, reason=why) for rung, why in found.items() if isinstance(why, str)
    ]
    return run, skipped


def _revisions(job: AdaptationJob) -> tuple[Way, ...]:
    base = base_options(job)
    if prompts := job.ladder.prompts:
        return tuple(
            Way(name=f"ladder.prompts[{n}]", options=_with(base, system_prompt=prompt))
            for n, prompt in enumerate(prompts)
        )
    bare = _with(base, system_prompt=None)
    return tuple(
        Way(name=name, options=bare, rewrite=rewrite)
        for name, rewrite in systematic(job.behaviour).items()
    )


def _few_shot(
    job: AdaptationJob, training: Sequence[Row], dev: Sequence[Row]
) -> tuple[Way, ...] | str:
    if shown := exemplars(training, dev):
        return (Way(options=_with(base_options(job), exemplars=shown)),)
    return f"fewer than {EXEMPLARS} answered training rows share no group with a dev item"


def _constrained(job: AdaptationJob, dev: Sequence[Row]) -> tuple[Way, ...] | str:
    if (schema := job.behaviour.output_schema) is not None:
        return (Way(options=_with(base_options(job), response_schema=schema)),)
    if any(row.tools for row in dev):
        return (Way(options=_with(base_options(job), constrain_calls=True)),)
    return "the job has no output schema and its rows no tools"


def _validated(job: AdaptationJob, dev: Sequence[Row]) -> tuple[Way, ...] | str:
    validator = validator_for(job.behaviour.output_schema, dev)
    if validator is None:
        return "the job has no output schema and its rows no tools to validate answers by"
    if not job.ladder.validator_retries:
        return "the job allows no retry (ladder.validator_retries is 0)"
    retry = Retry(validator=validator, times=job.ladder.validator_retries)
    return (Way(options=base_options(job), retry=retry),)


def _retrieved(job: AdaptationJob, documents: Sequence[Document]) -> tuple[Way, ...] | str:
    if job.ladder.corpus is None:
        return "the job names no documents to retrieve from (ladder.corpus)"
    shown = partial(Index(documents).shown, count=job.ladder.corpus.passages)
    return (Way(options=base_options(job), rewrite=shown),)


def _larger(job: AdaptationJob) -> tuple[Way, ...] | str:
    if job.ladder.larger_base is not None:
        return (Way(options=base_options(job)),)
    if decision := job.ladder.model_decision:
        return f"decided before this run: {decision}"
    return "the job names no larger base (ladder.larger_base), nor why it wants none"


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
        if _shows_how(row) and row.cluster not in taken:
            taken.add(row.cluster)
            shown.append(row)
        if len(shown) == count:
            return tuple(shown)
    return ()


def _length(row: Row) -> int:
    return sum(len(m.content) for m in row.messages) + len(row.target or "") + len(str(row.tools))


def _with(options: AskOptions, **changes: object) -> AskOptions:
    return replace(options, **changes)  # type: ignore[arg-type]  # the fields' own types


def _shows_how(row: Row) -> bool:
    """An answer judged undesirable is no example."""
    return row.target is not None and row.desirable is not False
