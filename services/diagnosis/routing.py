"""Routing: the base answers, and what its validator refuses goes to the larger base.

No request is made for it: both models have answered every dev item by then, so what the router
would have returned, and spent, can be read off. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from contracts.data import Row
from contracts.diagnosis import RungSkipped
from contracts.job import AdaptationJob
from services.diagnosis.usage import priced
from services.diagnosis.verdict import MeasuredRung
from shared.asking import Scored, together
from shared.scoring import validator_for


def routed(
    job: AdaptationJob, rows: Sequence[Row], base: Sequence[Scored], larger: MeasuredRung | None
) -> MeasuredRung | RungSkipped:
    """The router's answers to `rows`, or why there is no router.

    `larger` are the larger base's answers to the same rows, None if it was not measured.
    """
    validator = validator_for(job.behaviour.output_schema, rows)
    if larger is None:
        return _skipped("no second model to route to was measured")
    if validator is None:
        return _skipped("no output schema and no tools: nothing says which answers to route")
    sent = [bool(validator(row, own.answer.text)) for row, own in zip(rows, base, strict=True)]
    answers = tuple(
        replace(other, answer=together(own.answer, other.answer)) if up else own
        for own, other, up in zip(base, larger.scored, sent, strict=True)
    )
    return MeasuredRung(
        rung="routing",
        scored=answers,
        costs=_costs(job, base, larger, sent),
    )


def _costs(
    job: AdaptationJob, base: Sequence[Scored], larger: MeasuredRung, sent: Sequence[bool]
) -> tuple[float, ...] | None:
    own = priced(base, job.economics.price_per_mtok)
    if own is None or larger.costs is None:
        return None
    return tuple(a + b * up for a, b, up in zip(own, larger.costs, sent, strict=True))


def _skipped(reason: str) -> RungSkipped:
    return RungSkipped(rung="routing", reason=reason)
