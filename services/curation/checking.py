"""The first look at every row, before any is changed: readable, licensed, and not of passing truth.

The sources are read once, a shard at a time, and nothing of a row is kept but the hash of its id
and the labels it carries. Where each shard begins is noted, so that later legs read it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contracts.base import Problem
from contracts.job import AdaptationJob
from services.curation.firsts import Firsts
from services.curation.licences import row_problem
from services.curation.raters import own_annotations
from services.curation.reading import NAMED, Line, SourceFile, read_row
from services.curation.rows import TracedRow
from services.curation.volatility import volatile
from services.curation.workbench import Workbench

LEG = "check"
SHARD_ROWS = 2048
SHARD_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of lines of one source: what one shard is made of."""

    shard: int
    source: int
    start: int
    """The byte its first line begins at."""
    line: int
    """The number of its first line."""
    last_line: int
    last_number: int
    """The number of its last row among all rows."""
    next: int
    """The byte after its last line."""


def check(bench: Workbench, sources: Sequence[SourceFile], job: AdaptationJob) -> None:
    """Read every source; problems, labels and extents are in the bench afterwards."""
    ids = Firsts(bench.db, "ids")
    done = list(extents(bench))
    shard = len(done)
    source, start, line, number = 0, 0, 1, 0
    if done:
        last = done[-1]
        source, start, line, number = last.source, last.next, last.last_line + 1, last.last_number
    while source < len(sources):
        batch = _batch(sources[source].lines(start))
        if not batch:
            source, start, line = source + 1, 0, 1
            continue
        with bench.committing(LEG, shard):
            first, began, before = line, start, number
            for read in batch:
                number += _checked(bench, read, line, sources[source], ids, job)
                line += 1
            bench.add("sources", str(source), number - before)
            start = batch[-1].end
            bench.db.execute(
                "INSERT INTO extents VALUES (?, ?, ?, ?, ?, ?, ?)",
                (shard, source, began, first, line - 1, number, start),
            )
        shard += 1


def extents(bench: Workbench) -> Iterator[Extent]:
    """The shards of the sources, in order."""
    for found in bench.db.execute("SELECT * FROM extents ORDER BY shard").fetchall():
        yield Extent(*found)


def rows_of(extent: Extent, after: int, sources: Sequence[SourceFile]) -> Iterator[TracedRow]:
    """The rows of a checked shard, numbered on from `after`."""
    source, number = sources[extent.source], after
    for place, line in enumerate(source.lines(extent.start), start=extent.line):
        if place > extent.last_line:
            return
        if not line.content.strip():
            continue
        row = read_row(line, place, source, "target")
        if isinstance(row, Problem):
            raise ValueError(f"{row.where}: {row.problem}")
        number += 1
        yield row.numbered(number)


def _batch(lines: Iterator[Line]) -> list[Line]:
    """The next shard's lines."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += line.size
        if len(batch) == SHARD_ROWS or size >= SHARD_BYTES:
            break
    return batch


def _checked(
    bench: Workbench, line: Line, place: int, source: SourceFile, ids: Firsts, job: AdaptationJob
) -> bool:
    """Whether the line is a row; what is wrong with it is noted."""
    if not line.content.strip():
        return False
    row = read_row(line, place, source, "target", ids)
    if isinstance(row, Problem):
        bench.note_problem("unreadable", row, NAMED)
        return False
    for kind, problem in (("licence", row_problem(row, job)), ("volatile_facts", volatile(row))):
        if problem is not None:
            bench.note_problem(kind, problem, NAMED)
    bench.db.executemany(
        "INSERT INTO annotations (line) VALUES (?)",
        [(given.model_dump_json(),) for given in own_annotations(row)],
    )
    return True
