"""Failure logs are diagnosed before the rows made from them may be trained on (H7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from contracts.base import Problem
from contracts.job import AdaptationJob
from shared.errors import ArtifactMissing, InvalidInput
from shared.failures import analyse, may_train_on, read_traces


def failure_log_problems(job: AdaptationJob, fetch: Callable[[str], bytes]) -> Iterator[Problem]:
    """A problem for every source whose failure log is unreadable or calls for a lighter mend.

    `fetch` gives the bytes behind a uri of the job; its errors are reported as the log's.
    """
    for n, source in enumerate(job.data):
        if source.failures is None:
            continue
        where = f"data[{n}].failures"
        try:
            traces = read_traces(fetch(source.failures), where)
        except InvalidInput as error:
            yield from error.problems
        except (OSError, ValueError, ArtifactMissing) as error:
            yield Problem(
                where=where,
                problem=f"cannot be read: {error}",
                mend="name a readable JSON Lines file of traces",
            )
        else:
            yield from may_train_on(analyse(traces), where)
