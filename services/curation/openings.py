"""Answers that open as a teacher opens: 'Certainly!', 'As an AI language model,' (S2).

Synthesis strips them before a row is made; this is the second look, at all rows. In a synthetic row
the opening goes. A row that people handed in is theirs: it stays as it is, and is noted, since the
opening says that a model wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from services.curation.rows import Stage, Tally, TracedRow

_OPENING = re.compile(
    r"\s*(?:(?:certainly|sure(?: thing)?|of course|absolutely|great question|happy to help)"
    r"\s*[!,.:–—-]+\s*|as an? (?:ai|large)(?: language)?(?: model| assistant)?,\s*)+",
    re.IGNORECASE,
)


def without_opening(answer: str) -> str:
    """The answer without a teacher's opening; as it is where nothing would be left."""
    found = _OPENING.match(answer)
    rest = answer[found.end() :] if found else ""
    return rest[0].upper() + rest[1:] if rest else answer


def openings() -> Stage:
    """Strip the opening from synthetic rows; note it on others. Answers to avoid keep theirs."""

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            row = traced.row
            plain = without_opening(row.target or "")
            if plain == (row.target or "") or row.desirable is False:
                yield traced
            elif row.origin is not None:
                tally.changes["stripped:teacher_opening"] += 1
                yield traced.changed(row.model_copy(update={"target": plain}), "opening stripped")
            else:
                tally.changes["reported:teacher_opening"] += 1
                tally.notes.append((traced, "teacher_opening", "opens as models do"))
                yield traced

    def warn(total: Tally) -> list[str]:
        if not (rows := total.changes["reported:teacher_opening"]):
            return []
        return [
            f"teacher openings: {rows} answers of people's data open as models do "
            f"({', '.join(total.named)}); look at where they come from"
        ]

    return Stage("openings", apply, warn)
