"""In a distillation the teacher's answers stand in the place of the job's own (T1).

Sequence distillation learns what the teacher says, so a positive row whose answer is somebody
else's goes out once its request has been answered. Boundary, negative and rehearsal rows stay: they
hold what the job wants whoever teaches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from contracts.base import Digest
from services.curation.rows import Stage, Tally, TracedRow


def teachers_answers(sources: Collection[Digest]) -> Stage:
    """Keep the rows of `sources`, the teacher's, and of the others those that are not positive."""

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            if traced.role == "positive" and traced.source not in sources:
                tally.drop(traced, "replaced_by_teacher")
            else:
                yield traced

    return Stage("taught", apply)
