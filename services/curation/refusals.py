"""Refusals: each carries its reason, forced ones are logged, and law by region is kept (C7).

A refusal without a reason teaches arbitrary stonewalling, so such a row is dropped: the reason
stands in the answer, or in `meta.refusal_reason`. A *mandate* is a rule of law in some regions. In
a region where the adapter will serve, a request that matches a mandate may only be trained on as a
refusal; those refusals are forced, and the log says by which mandate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from contracts.data import Row
from contracts.governance import CurationPolicy, Mandate
from services.curation.rows import Stage, Tally, TracedRow, request_text

FILE = "refusals.jsonl"


@dataclass(frozen=True, slots=True)
class RefusalEntry:
    """One refusal of the dataset."""

    row: str
    kind: str
    """`meta.refusal_type`, or `unclassified`."""
    reason: str
    """`meta.refusal_reason`, or `in the answer`."""
    mandates: tuple[str, ...] = ()
    """The mandates that force it; none: the refusal is the job's own choice."""

    def to_json(self) -> str:
        return json.dumps(
            {"row": self.row, "type": self.kind, "reason": self.reason,
             "forced": bool(self.mandates), "mandates": list(self.mandates)},
            sort_keys=True,
        )  # fmt: skip


@dataclass(slots=True)
class RefusalLog:
    """The refusals of a shard that stay."""

    entries: list[RefusalEntry] = field(default_factory=list)

    def drained(self) -> list[RefusalEntry]:
        """The entries; the log is empty afterwards."""
        taken, self.entries = self.entries, []
        return taken


def in_force(policy: CurationPolicy) -> list[tuple[Mandate, re.Pattern[str]]]:
    """The mandates that bind where the adapter will serve; no region given means all of them."""
    regions = set(policy.regions)
    return [
        (mandate, re.compile(mandate.pattern, re.IGNORECASE))
        for mandate in policy.mandates
        if not regions or "*" in mandate.regions or regions & set(mandate.regions)
    ]


def refusal_stage(policy: CurationPolicy, log: RefusalLog) -> Stage:
    """Drop refusals without a reason, and answers that a mandate forbids; log the rest."""
    binding = in_force(policy)

    def apply(rows: Iterable[TracedRow], tally: Tally) -> Iterator[TracedRow]:
        for traced in rows:
            row = traced.row
            request = request_text(row)
            bound = tuple(m.id for m, pattern in binding if pattern.search(request))
            if not is_refusal(row):
                if bound and row.desirable is not False:
                    tally.drop(traced, f"mandate:{bound[0]}", "the law wants a refusal here")
                else:
                    yield traced
            elif (reason := reason_of(row)) is None:
                tally.drop(traced, "refusal_without_reason")
            else:
                tally.marks.update(bound)
                kind = str(row.meta.get("refusal_type", "unclassified"))
                log.entries.append(RefusalEntry(row.id, kind, reason, bound))
                yield traced

    def warn(total: Tally) -> list[str]:
        return [
            f"mandate {m.id}: no row teaches the refusal it wants"
            for m, _ in binding
            if not total.marks[m.id]
        ]

    return Stage("refusals", apply, warn)


def is_refusal(row: Row) -> bool:
    """Whether the answer declines: it opens as refusals do, or the row says so."""
    if "refusal_reason" in row.meta or "refusal_type" in row.meta:
        return True
    opening = " ".join((row.target or "").casefold().replace("’", "'").split())
    return opening.startswith(_words()[0])


def reason_of(row: Row) -> str | None:
    """Why the answer declines, or None where nothing says it."""
    given = str(row.meta.get("refusal_reason", "")).strip()
    if given:
        return given
    text = " ".join((row.target or "").casefold().split())
    return "in the answer" if any(f" {word}" in text for word in _words()[1]) else None


def keywords(rows: Sequence[Row]) -> dict[str, int]:
    """Content word → how many of `rows` ask with it."""
    counts: dict[str, int] = {}
    stop = _words()[2]
    for row in rows:
        for word in set(re.findall(r"[^\W\d_]{4,}", request_text(row).casefold())) - stop:
            counts[word] = counts.get(word, 0) + 1
    return counts


@cache
def _words() -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    text = resources.files("services.curation").joinpath("refusals.json").read_text("utf-8")
    data = json.loads(text)
    return tuple(data["openings"]), tuple(data["reasons"]), frozenset(data["common"])
