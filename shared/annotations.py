"""Labels of several raters: measured for each line of the rubric, then settled (C2).

Raters vote; an expert's adjudication decides a row they dispute and counts for nothing in kappa.
A row is settled by its adjudication, else by a majority of its votes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from contracts.base import Problem
from contracts.data import Annotation, LineAgreement
from shared.errors import InvalidInput
from shared.statistics.agreement import Ratings, agreement, disputes

NAMED = 20


@dataclass(slots=True)
class Ballot:
    """All labels of one line: the votes, and what experts decided."""

    votes: dict[str, dict[str, str]] = field(default_factory=dict)
    """Item → rater → label."""
    decided: dict[str, str] = field(default_factory=dict)

    def settled(self, item: str) -> str | None:
        """The label of an item; None where its votes tie and nobody decided."""
        if item in self.decided:
            return self.decided[item]
        first, *rest = Counter(self.votes.get(item, {}).values()).most_common(2)
        return None if rest and rest[0][1] == first[1] else first[0]

    def undecided(self) -> list[str]:
        """Disputed items without an adjudication, the most disputed first."""
        return [item for item, _ in disputes(self.votes) if item not in self.decided]


def read_annotations(content: bytes, name: str) -> list[Annotation]:
    """JSON Lines of annotations. Raises InvalidInput naming the malformed lines."""
    found: list[Annotation] = []
    problems: list[Problem] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(Annotation.model_validate_json(line))
        except ValidationError as error:
            detail = error.errors(include_url=False, include_input=False)[0]
            at = ".".join(str(part) for part in detail["loc"])
            problems.append(
                Problem(
                    where=f"{name}:{number}",
                    problem=f"{at}: {detail['msg']}" if at else detail["msg"],
                    mend="one annotation a line; see `sluice schema annotation`",
                )
            )
    if problems:
        raise InvalidInput(problems[:NAMED])
    return found


def ballots(annotations: Iterable[Annotation]) -> dict[str, Ballot]:
    """Line → its labels. A rater who labels an item twice means the later label."""
    lines: dict[str, Ballot] = {}
    for given in annotations:
        ballot = lines.setdefault(given.line, Ballot())
        if given.adjudication:
            ballot.decided[given.item] = given.label
        else:
            ballot.votes.setdefault(given.item, {})[given.rater] = given.label
    return lines


def measured(line: str, votes: Ratings) -> LineAgreement:
    """The agreement of one line, as a dataset card holds it."""
    found = agreement(votes)
    return LineAgreement(
        line=line,
        kind=found.kind,
        kappa=None if found.kappa is None else round(found.kappa, 6),
        interval=found.interval,
        items=found.items,
        raters=found.raters,
        observed=round(found.observed, 6),
        base_rate=round(found.base_rate, 6),
    )


def measured_lines(lines: Mapping[str, Ballot]) -> tuple[LineAgreement, ...]:
    """Every line that two raters share a row on, the least agreed first; no evidence comes last."""
    rated = {
        line: ballot.votes
        for line, ballot in lines.items()
        if any(len(labels) > 1 for labels in ballot.votes.values())
    }
    found = [measured(line, votes) for line, votes in rated.items()]
    return tuple(sorted(found, key=lambda a: (2.0 if a.kappa is None else a.kappa, a.line)))


def below(lines: Sequence[LineAgreement], minimum: float) -> list[LineAgreement]:
    """The lines whose kappa, as a point estimate, is below `minimum` (ERRATA 7)."""
    return [line for line in lines if line.kappa is not None and line.kappa < minimum]


def uncertain(lines: Sequence[LineAgreement], minimum: float) -> list[str]:
    """A sentence for every line that passes but whose interval reaches below `minimum`."""
    said = []
    for line in lines:
        if line.kappa is None:
            said.append(
                f"agreement: raters gave {line.line!r} one label only on {line.items} rows; "
                "that is no evidence of agreement"
            )
        elif line.kappa >= minimum and line.interval and line.interval.low < minimum:
            said.append(
                f"agreement: kappa of {line.line!r} is {line.kappa:.2f}, its interval "
                f"[{line.interval.low:.2f}, {line.interval.high:.2f}] reaches below {minimum:.2f}; "
                f"label more than {line.items} rows"
            )
    return said
