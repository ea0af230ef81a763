"""JSON Lines in, traced rows out; every unreadable line is named with its mend.

Nothing vanishes silently: one unreadable row halts curation. The reader sees up to twenty of them
by file and line, and the total.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import ValidationError

from contracts.base import Digest, Problem, digest_of
from contracts.data import Row
from contracts.governance import DataRole
from services.curation.rows import TracedRow

NAMED = 20
"""Problems listed in full; the rest are counted."""
MAX_ROW_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"

_NOT_JSON_NUMBER = re.compile(rb"\b(?:NaN|Infinity)\b")
Needs = Literal["target", "expected"]


class Seen(Protocol):
    """Remembers where an id was used first."""

    def setdefault(self, key: bytes, value: str, /) -> str: ...


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, without its newline."""

    content: bytes
    """At most the first bytes of a line that is too long."""
    size: int
    end: int
    """Where in the file the next line begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file of rows and who vouches for it: by path, or a small one by its content."""

    file: str
    """The name problems use (`train.jsonl`)."""
    content: bytes = b""
    path: Path | None = None
    role: DataRole = "positive"
    licence: str = ""
    provenance: str = ""
    digest: Digest = ""
    """Of the content; given with a `path`."""

    def __post_init__(self) -> None:
        if self.path is not None and not self.digest:
            raise ValueError(f"{self.file}: a file by path needs its digest")
        if not self.digest:
            object.__setattr__(self, "digest", digest_of(self.content))

    def lines(self, start: int = 0) -> Iterator[Line]:
        """Lines from the byte `start` on; a line of any length costs no more memory than a row."""
        with self.path.open("rb") if self.path else io.BytesIO(self.content) as handle:
            handle.seek(start)
            while content := handle.readline(MAX_ROW_BYTES + 2):
                size = len(content)
                whole = content.endswith(b"\n")
                while not whole and (more := handle.readline(MAX_ROW_BYTES)):
                    size += len(more)
                    whole = more.endswith(b"\n")
                if handle.tell() == size and content.startswith(_BOM):
                    content = content[len(_BOM) :]
                yield Line(content.removesuffix(b"\n"), size - whole, handle.tell())


def summarised(problems: Iterable[Problem], noun: str) -> tuple[Problem, ...]:
    """The first twenty problems, then one that gives the total."""
    named = list(problems)
    return first_of(named[:NAMED], len(named), noun)


def first_of(named: Sequence[Problem], total: int, noun: str) -> tuple[Problem, ...]:
    """The first problems of `total`, then one that gives the total where it is larger."""
    if total <= len(named):
        return tuple(named)
    rest = Problem(
        where=f"{total} {noun}",
        problem=f"{total} in total; the first {len(named)} are listed",
        mend="mend the listed ones and submit again, or fix the export that wrote them",
    )
    return (*named, rest)


def read_rows(
    source: SourceFile, needs: Needs, problems: list[Problem], seen: Seen | None = None
) -> Iterator[TracedRow]:
    """Yield the readable rows; append a problem for every other line.

    `seen` maps the hash of a row's id → where, and may be shared between files: ids are unique over
    the job.
    """
    ids: Seen = {} if seen is None else seen
    for number, line in enumerate(source.lines(), start=1):
        if line.content.strip():
            row = read_row(line, number, source, needs, ids)
            if isinstance(row, Problem):
                problems.append(row)
            else:
                yield row


def read_row(
    line: Line, number: int, source: SourceFile, needs: Needs, seen: Seen | None = None
) -> TracedRow | Problem:
    """The row on line `number` of a file, or what is wrong with it."""
    where = f"{source.file}:{number}"
    parsed = _parse(line, where, needs)
    if isinstance(parsed, Problem):
        return parsed
    first = where
    if seen is not None:
        key = hashlib.blake2b(parsed.id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first = seen.setdefault(key, where)
    if first != where:
        return Problem(
            where=where,
            problem=f"id {parsed.id!r} is already used at {first}",
            mend="give every row its own id",
        )
    return TracedRow(parsed, source.file, number, source.digest, source.role)


def _parse(read: Line, where: str, needs: Needs) -> Row | Problem:
    line = read.content
    if read.size > MAX_ROW_BYTES:
        return Problem(
            where=where,
            problem=f"the row has {read.size} bytes, more than {MAX_ROW_BYTES}",
            mend="split or shorten the row",
        )
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return Problem(
            where=where, problem=f"not UTF-8 at byte {error.start}", mend="re-export as UTF-8"
        )
    if _NOT_JSON_NUMBER.search(line) and _has_non_finite(line):
        return Problem(
            where=where, problem="holds NaN or Infinity", mend="use null or a finite number"
        )
    try:
        row = Row.model_validate_json(line)
    except ValidationError as error:
        return _invalid(error, where)
    if (row.target if needs == "target" else row.expected) is None:
        purpose = "training rows need the answer to learn"
        if needs == "expected":
            purpose = "evaluation rows need what the scorer checks"
        return Problem(where=where, problem=f"no `{needs}`", mend=f"{purpose}: add `{needs}`")
    if needs == "target" and not (row.target or "").strip():
        return Problem(
            where=where, problem="`target` is empty", mend="write the answer, or drop it"
        )
    return row


def _has_non_finite(line: bytes) -> bool:
    found: list[str] = []

    def note(constant: str) -> float:
        found.append(constant)
        return 0.0

    try:
        json.loads(line, parse_constant=note)
    except ValueError:
        return False
    return bool(found)


def _invalid(error: ValidationError, where: str) -> Problem:
    first = error.errors(include_url=False, include_input=False)[0]
    field_path = ".".join(str(part) for part in first["loc"])
    mends = {
        "json_invalid": "write one JSON object per line",
        "extra_forbidden": "remove the field, or move it into `meta`",
        "missing": "add the field",
    }
    return Problem(
        where=where,
        problem=f"`{field_path}`: {first['msg']}" if field_path else first["msg"],
        mend=mends.get(first["type"], "see the row format, contracts.data.Row"),
    )
