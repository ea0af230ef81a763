"""Labelling: each rater's labels in a file of their own, seen by nobody else.

Double-blind means that a rater sees the request and the answer and nothing of where the row came
from or what others said, in an order of the rater's own. An adjudicator sees the labels without
the names, and decides only rows that raters dispute. Who has voted on a round adjudicates none of
it, and who was shown labels of rows, in whatever round, votes on them no more: that is kept before
they are shown. Labels of one *round* count together; a rubric that was recalibrated begins the next
round.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from contracts.base import Problem
from contracts.data import Annotation, LineAgreement, Row, parse_row
from shared.annotations import Ballot, ballots, below, measured_lines, read_annotations
from shared.errors import InvalidInput

ENOUGH = 20
"""Rows that raters share before a low kappa stops collection: below it, chance decides."""


@dataclass(frozen=True, slots=True)
class Question:
    """One row and one line of the rubric, as a rater sees them."""

    item: str
    line: str
    text: str
    given: tuple[str, ...] = ()
    """For an adjudicator: what raters said, sorted, without their names."""


@dataclass(frozen=True, slots=True)
class Round:
    """The labels of one round on one file of rows."""

    folder: Path
    rows: tuple[Row, ...]
    lines: tuple[str, ...]

    @classmethod
    def of(cls, file: Path, rows: Sequence[Row], lines: Sequence[str], number: int) -> Round:
        return cls(file.with_name(f"{file.name}.labels") / f"round-{number}", tuple(rows),
                   tuple(lines))  # fmt: skip

    def annotations(self) -> list[Annotation]:
        """All labels so far, of every rater."""
        found: list[Annotation] = []
        for path in sorted(self.folder.glob("*.jsonl")):
            found += read_annotations(path.read_bytes(), path.name)
        return found

    def questions(self, rater: str) -> Iterator[Question]:
        """What `rater` has not answered yet, in an order of the rater's own.

        Raises InvalidInput where the rater has seen others' labels of these rows.
        """
        self._require_blind(rater)
        done = {(a.item, a.line) for a in self._own(rater)}
        for row in sorted(self.rows, key=lambda row: _order(rater, row.id)):
            for line in self.lines:
                if (row.id, line) not in done:
                    yield Question(row.id, line, blind(row))

    def disputes(self, expert: str) -> Iterator[Question]:
        """Undecided disputes. Raises InvalidInput where the expert has voted in this round."""
        labels = ballots(self.annotations())
        if any(expert in votes for b in labels.values() for votes in b.votes.values()):
            raise _bad("--rater", f"{expert!r} voted in this round", "let somebody else adjudicate")
        texts = {row.id: blind(row) for row in self.rows}
        for line, ballot in sorted(labels.items()):
            for item in ballot.undecided():
                given = tuple(sorted(ballot.votes[item].values()))
                self._show(expert, item)
                yield Question(item, line, texts.get(item, item), given)

    def record(self, rater: str, question: Question, label: str) -> None:
        """Keep one label: on disk before the next question is shown.

        Raises InvalidInput where it is a vote, and the rater has seen others' labels meanwhile.
        """
        if not question.given:
            self._require_blind(rater)
        given = Annotation(
            item=question.item,
            rater=rater,
            label=label,
            line=question.line,
            adjudication=bool(question.given),
        )
        self._append(self._path(rater), given.model_dump_json())

    def agreement(self) -> tuple[tuple[LineAgreement, ...], dict[str, Ballot]]:
        """Each line's agreement, the least agreed first, and its labels."""
        labels = ballots(self.annotations())
        return measured_lines(labels), labels

    def halted(self, minimum: float) -> list[LineAgreement]:
        """Lines that stop collection: enough shared rows, and too little agreement."""
        lines, _ = self.agreement()
        return [line for line in below(lines, minimum) if line.items >= ENOUGH]

    def _require_blind(self, rater: str) -> None:
        seen = self._shown(rater) & {row.id for row in self.rows}
        if seen:
            raise _bad(
                "--rater",
                f"{rater!r} has seen, as an adjudicator, what others said of {len(seen)} of these "
                "rows",
                "let somebody vote who has not",
            )

    def _shown(self, expert: str) -> set[str]:
        """The rows whose labels `expert` was shown, or decided on, in any round."""
        found: set[str] = set()
        for folder in self.folder.parent.glob("round-*"):
            here = replace(self, folder=folder)
            found |= {a.item for a in here._own(expert) if a.adjudication}
            path = here._path(expert).with_suffix(".seen")
            if path.exists():
                found |= {json.loads(line) for line in path.read_bytes().splitlines()}
        return found

    def _show(self, expert: str, item: str) -> None:
        if item not in self._shown(expert):
            self._append(self._path(expert).with_suffix(".seen"), json.dumps(item))

    def _append(self, path: Path, line: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _own(self, rater: str) -> list[Annotation]:
        path = self._path(rater)
        return read_annotations(path.read_bytes(), path.name) if path.exists() else []

    def _path(self, rater: str) -> Path:
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in rater)
        return self.folder / f"{name}.jsonl"


def read_rows(file: Path) -> list[Row]:
    """The rows of a file. Raises InvalidInput naming the first that is malformed."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise _bad(str(file), str(error.strerror), "name a readable file") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(parse_row(line))
            except ValidationError as error:
                detail = error.errors()[0]["msg"]
                mend = "one row a line; see `sluice schema row`"
                raise _bad(f"{file.name}:{number}", detail, mend) from error
    return rows


def _bad(where: str, problem: str, mend: str) -> InvalidInput:
    return InvalidInput([Problem(where=where, problem=problem, mend=mend)])


def blind(row: Row) -> str:
    """The request and the answer; not the row's name, source, role or origin."""
    turns = [f"{message.role}: {message.content}" for message in row.messages]
    return "\n".join((*turns, f"answer: {row.target}"))


def _order(rater: str, item: str) -> bytes:
    return hashlib.sha256(f"{rater}\n{item}".encode()).digest()
