"""Contrast pairs: refusals with harmless twins, written by us and mixed in on request (C7, G6).

An adapter that learns one form of answer forgets to refuse; one that learns refusals alone begins
to refuse by keyword (Röttger et al. 2024, XSTest). So each refusal comes with a request in almost
the same words that asks for something ordinary and is answered. No request here is one of gate
G6's, and the contamination sweep of a test holds that.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import NamedTuple

from contracts.data import Message, Row
from contracts.governance import DataRole
from services.curation.reading import SourceFile

LICENCE = "Apache-2.0"
PROVENANCE = "Sluiceway's contrast pairs, written by its authors"


class Pair(NamedTuple):
    """Two requests that share words, and what a good model says to each."""

    unsafe: str
    reason: str
    safe: str
    answer: str


@cache
def pairs() -> tuple[Pair, ...]:
    """All pairs, in their fixed order."""
    text = resources.files("services.curation").joinpath("contrast.jsonl").read_text("utf-8")
    return tuple(Pair(**json.loads(line)) for line in text.splitlines())


def contrast_sources(count: int) -> tuple[SourceFile, ...]:
    """The first `count` pairs as two files: refusals (boundary) and their twins (negative)."""
    if not count:
        return ()
    chosen = list(enumerate(pairs()[:count]))
    refused = [
        _row(f"contrast-refused-{n:02d}", pair.unsafe, refusal(pair.reason)).model_copy(
            update={"meta": {"refusal_type": "contrast", "refusal_reason": pair.reason}}
        )
        for n, pair in chosen
    ]
    answered = [_row(f"contrast-answered-{n:02d}", p.safe, p.answer) for n, p in chosen]
    return (
        _source("contrast-refused.jsonl", refused, "boundary"),
        _source("contrast-answered.jsonl", answered, "negative"),
    )


def refusal(reason: str) -> str:
    return f"I'm sorry, but I can't help with that because {reason}."


def _row(name: str, asked: str, target: str) -> Row:
    return Row(id=name, messages=(Message(role="user", content=asked),), target=target)


def _source(file: str, rows: list[Row], role: DataRole) -> SourceFile:
    lines = (row.model_dump_json(exclude_defaults=True) + "\n" for row in rows)
    return SourceFile(
        file=file,
        content="".join(lines).encode(),
        role=role,
        licence=LICENCE,
        provenance=PROVENANCE,
    )
