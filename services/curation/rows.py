"""A row on its way through curation, and what each stage did to it.

A stage is a pure generator over traced rows. It reports through a `Tally`: what it dropped and why,
what it changed and why. Stages compose; rows stream through all of them, one at a time. A corpus is
cut into shards, and a stage sees one shard at a time: what it must know of the rest is in an index
on disk that it is given, and what it says of the whole is said at the end (`Stage.warn`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from contracts.base import Digest
from contracts.data import Row, StageReport
from contracts.governance import DataRole


@dataclass(frozen=True, slots=True)
class TracedRow:
    """A row with its place of origin and the transformations so far (C4)."""

    row: Row
    file: str
    line: int
    source: Digest
    role: DataRole
    changes: tuple[str, ...] = ()
    number: int = 0
    """Its place among all rows of the job, from 1, in the order they are read."""

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def changed(self, row: Row, by: str) -> TracedRow:
        return replace(self, row=row, changes=(*self.changes, by))

    def numbered(self, number: int) -> TracedRow:
        return replace(self, number=number)


@dataclass(frozen=True, slots=True)
class Fate:
    """Why a row is not in the dataset."""

    row: TracedRow
    stage: str
    reason: str
    detail: str = ""


@dataclass(slots=True)
class Tally:
    """One stage's account of a shard, or of all of them."""

    stage: str
    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    fates: list[Fate] = field(default_factory=list)
    notes: list[tuple[TracedRow, str, str]] = field(default_factory=list)
    """(row, reason, detail) of rows that stay although something speaks against them."""
    marks: Counter[str] = field(default_factory=Counter)
    """What the stage's warnings need to know of all shards and no card shows."""
    named: tuple[str, ...] = ()
    """In the account of all shards: the first rows that something speaks against."""

    def drop(self, row: TracedRow, reason: str, detail: str = "") -> None:
        self.dropped[reason] += 1
        self.fates.append(Fate(row, self.stage, reason, detail))

    def report(self) -> StageReport:
        return StageReport(
            stage=self.stage,
            rows_in=self.rows_in,
            rows_out=self.rows_out,
            dropped=dict(sorted(self.dropped.items())),
            changed=dict(sorted(self.changes.items())),
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """A named step; `apply` yields the rows that stay and tallies the rest."""

    name: str
    apply: Callable[[Iterable[TracedRow], Tally], Iterator[TracedRow]]
    warn: Callable[[Tally], list[str]] = lambda _: []
    """Sentences for the card, from the account of all shards."""


def through(
    stages: Iterable[Stage], rows: Iterable[TracedRow]
) -> tuple[Iterator[TracedRow], list[Tally]]:
    """Chain `stages`. The tallies are complete once the iterator is spent."""
    tallies: list[Tally] = []
    stream: Iterator[TracedRow] = iter(rows)
    for stage in stages:
        tally = Tally(stage.name)
        tallies.append(tally)
        stream = _counted_out(stage.apply(_counted_in(stream, tally), tally), tally)
    return stream, tallies


def _counted_in(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
    for row in rows:
        tally.rows_in += 1
        yield row


def _counted_out(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
    for row in rows:
        tally.rows_out += 1
        yield row


def request_text(row: Row) -> str:
    """What the row asks: every turn but the system's, which rows of one behaviour share."""
    return "\n".join(m.content for m in row.messages if m.role != "system")


def content_text(row: Row) -> str:
    """All that the row teaches: its turns, its target and the answer it rejects."""
    rejected = () if row.rejected is None else (row.rejected,)
    return "\n".join((*(m.content for m in row.messages), row.target or "", *rejected))
