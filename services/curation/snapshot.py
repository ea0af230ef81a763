"""The dataset as an immutable thing: canonical bytes, digests, a card and its readable form (C8).

The same rows give the same bytes on every machine: no clock, no path, sorted keys, one row a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import rfc8785

from contracts.base import Digest, digest_of
from contracts.data import DatasetCard, Row
from services.curation.rows import Fate, Tally, TracedRow
from shared.doctrine.volatility import Volatility

LIBRARIES = ("presidio-analyzer", "detect-secrets", "rensa", "pydantic", "packaging")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A dataset: its card, and the bytes of every file the card names."""

    card: DatasetCard
    files: dict[str, bytes]

    @property
    def card_bytes(self) -> bytes:
        """RFC 8785 canonical JSON. Its digest is the dataset's identity."""
        return rfc8785.dumps(self.card.model_dump(mode="json", by_alias=True))

    @property
    def digest(self) -> Digest:
        return digest_of(self.card_bytes)


def row_bytes(row: Row) -> bytes:
    """One canonical JSON line, without its newline: sorted keys, defaults left out."""
    return _line(row.model_dump(mode="json", exclude_defaults=True))


def rows_bytes(rows: Iterable[Row]) -> bytes:
    """Canonical JSON Lines."""
    return b"".join(row_bytes(row) + b"\n" for row in rows)


def lineage_bytes(
    splits: Mapping[str, Sequence[TracedRow]],
    tallies: Sequence[Tally],
    scores: Mapping[str, Volatility],
) -> bytes:
    """Row → source digest and line → transformations → split, for kept and dropped rows (C4).

    Kept rows also have their volatility (C10, `scores` by row id) and what speaks against them.
    """
    entries: list[dict[str, Any]] = []
    notes: dict[tuple[str, int], list[dict[str, str]]] = {}
    for tally in tallies:
        for traced, reason, detail in tally.notes:
            note = {"stage": tally.stage, "reason": reason, "detail": detail}
            notes.setdefault((traced.file, traced.line), []).append(note)
    for name, rows in splits.items():
        entries += [
            _traced(t)
            | {"split": name, "digest": digest_of(row_bytes(t.row))}
            | {"volatility": scores[t.row.id].score}
            | ({"notes": found} if (found := notes.get((t.file, t.line))) else {})
            for t in rows
        ]
    fates: list[Fate] = [fate for tally in tallies for fate in tally.fates]
    entries += [
        _traced(fate.row)
        | {"dropped_by": fate.stage, "reason": fate.reason}
        | ({"detail": fate.detail} if fate.detail else {})
        for fate in fates
    ]
    entries.sort(key=lambda e: (e["file"], e["line"], e["source"]))
    return b"".join(_line(entry) + b"\n" for entry in entries)


def library_versions() -> dict[str, str]:
    """Library → installed version, of those that shape rows."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _traced(traced: TracedRow) -> dict[str, Any]:
    return {
        "row": traced.row.id,
        "source": traced.source,
        "file": traced.file,
        "line": traced.line,
        "role": traced.role,
        "transformations": list(traced.changes),
    }


def _line(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
