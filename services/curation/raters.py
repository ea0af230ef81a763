"""Raters' labels decide which rows may teach, once they agree on what the labels mean (C2).

Labels come from a file of annotations and from `meta.annotations` of the rows. Each line of the
rubric is measured apart; a line below the minimum halts the run and names what divides the raters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from contracts.base import Problem
from contracts.curation import Dispute, RecalibrationRequired
from contracts.data import Annotation, LineAgreement
from services.curation.rows import Stage, Tally, TracedRow
from shared.annotations import Ballot, below
from shared.statistics.agreement import disputes

MOST_DISPUTES = 20


def own_annotations(traced: TracedRow) -> Iterator[Annotation]:
    """Labels that a row carries in `meta.annotations` (rater → label)."""
    given = traced.row.meta.get("annotations")
    if isinstance(given, dict):
        for rater, label in given.items():
            yield Annotation(item=traced.row.id, rater=rater, label=str(label))


def recalibration(
    lines: Sequence[LineAgreement], labels: Mapping[str, Ballot], minimum: float
) -> RecalibrationRequired | None:
    """The event that halts the run, or None where every line is agreed well enough."""
    low = below(lines, minimum)
    if not low:
        return None
    disputed = [
        Dispute(item=item, line=line.line, disagreement=share, labels=labels[line.line].votes[item])
        for line in low
        for item, share in disputes(labels[line.line].votes)
    ]
    disputed.sort(key=lambda d: (-d.disagreement, d.line, d.item))
    return RecalibrationRequired(
        minimum_kappa=minimum,
        lines=tuple(lines),
        disputes=tuple(disputed[:MOST_DISPUTES]),
        problems=tuple(_problem(line, minimum) for line in low),
    )


def _problem(line: LineAgreement, minimum: float) -> Problem:
    span = "" if line.interval is None else f" [{line.interval.low:.2f}, {line.interval.high:.2f}]"
    return Problem(
        where=f"curation.annotations: {line.line}",
        problem=f"{line.kind.title()}'s kappa is {line.kappa:.2f}{span} over {line.items} rows and "
        f"{line.raters} raters, below {minimum:.2f}",
        mend="rewrite this line of the rubric with the disputed rows as examples, and label again",
    )


def settle(labels: Mapping[str, Ballot], refused: Sequence[str]) -> Stage:
    """Drop rows settled on a refused label, and rows whose raters tie with no adjudication."""
    unwanted = frozenset(refused)

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            reason = _against(traced.row.id, labels, unwanted)
            if reason is None:
                yield traced
            else:
                tally.drop(traced, *reason)

    return Stage("annotations", apply)


def _against(
    item: str, labels: Mapping[str, Ballot], unwanted: frozenset[str]
) -> tuple[str, str] | None:
    for line, ballot in labels.items():
        if item not in ballot.votes and item not in ballot.decided:
            continue
        label = ballot.settled(item)
        if label is None:
            return "unsettled", f"{line}: raters tie and no expert decided"
        if label in unwanted:
            by = "an expert" if item in ballot.decided else "its raters"
            return "refused_label", f"{line}: {by} settled on {label}"
    return None
