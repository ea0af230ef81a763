"""Adapter ids: the next free version of a base and a task namespace (R1, ERRATA 16)."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.base import Problem
from contracts.job import AdaptationJob
from contracts.registry import AdapterId
from shared.errors import InvalidInput


def next_id(job: AdaptationJob, taken: Iterable[int]) -> AdapterId:
    """The id after the `taken` versions of the job's base and namespace.

    Versions are never reused, whatever became of the adapter that had one.

    Raises:
        InvalidInput: the base's name cannot be spelled in an id.

    """
    version = max(taken, default=0) + 1
    made = AdapterId(base=job.base.label, task=job.task_namespace, version=version)
    try:
        parsed = AdapterId.parse(str(made))
    except ValueError as error:
        raise _unspellable(job.base.label) from error
    if parsed != made:
        raise _unspellable(job.base.label)
    return made


def _unspellable(label: str) -> InvalidInput:
    return InvalidInput(
        [
            Problem(
                where="base.name",
                problem=f"{label!r} cannot begin an adapter id",
                mend="set base.name to letters, digits, dots, dashes or underscores",
            )
        ]
    )
