"""JSON Lines in, traced rows out; every unreadable line is named with its mend.

Nothing vanishes silently: one unreadable row halts curation. The reader sees up to twenty of them
by file and line, and the total.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from pydantic import ValidationError

from contracts.base import Digest, Problem, digest_of
from contracts.data import Row
from contracts.governance import DataRole
from services.curation.rows import TracedRow

NAMED = 20
"""Problems listed in full; the rest are counted."""
MAX_ROW_BYTES = 1 << 20

_NOT_JSON_NUMBER = re.compile(rb"\b(?:NaN|Infinity)\b")
Needs = Literal["target", "expected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file of rows and who vouches for it."""

    file: str
    """The name problems use (`train.jsonl`)."""
    content: bytes
    role: DataRole = "positive"
    licence: str = ""
    provenance: str = ""
    digest: Digest = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.content))


def summarised(problems: Iterable[Problem], noun: str) -> tuple[Problem, ...]:
    """The first twenty problems, then one that gives the total."""
    named = list(problems)
    if len(named) <= NAMED:
        return tuple(named)
    rest = Problem(
        where=f"{len(named)} {noun}",
        problem=f"{len(named)} in total; the first {NAMED} are listed",
        mend="mend the listed ones and submit again, or fix the export that wrote them",
    )
    return (*named[:NAMED], rest)


def read_rows(
    source: SourceFile, needs: Needs, problems: list[Problem], seen: dict[str, str] | None = None
) -> Iterator[TracedRow]:
    """Yield the readable rows; append a problem for every other line.

    `seen` maps row id → where, and may be shared between files: ids are unique over the job.
    """
    ids = {} if seen is None else seen
    for number, line in enumerate(_lines(source.content), start=1):
        if not line.strip():
            continue
        where = f"{source.file}:{number}"
        parsed = _parse(line, where, needs)
        if isinstance(parsed, Problem):
            problems.append(parsed)
        elif (first := ids.setdefault(parsed.id, where)) != where:
            problems.append(
                Problem(
                    where=where,
                    problem=f"id {parsed.id!r} is already used at {first}",
                    mend="give every row its own id",
                )
            )
        else:
            yield TracedRow(parsed, source.file, number, source.digest, source.role)


def _lines(content: bytes) -> Iterator[bytes]:
    start = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    while start < len(content):
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        yield content[start:end]
        start = end + 1


def _parse(line: bytes, where: str, needs: Needs) -> Row | Problem:
    if len(line) > MAX_ROW_BYTES:
        return Problem(
            where=where,
            problem=f"the row has {len(line)} bytes, more than {MAX_ROW_BYTES}",
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
