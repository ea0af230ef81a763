"""A row's line in `lineage.jsonl`: source and line → transformations → split, or why not (C4)."""

from __future__ import annotations

from typing import Any

from contracts.base import digest_of
from services.curation.rows import Fate, TracedRow


def fate_entry(fate: Fate) -> dict[str, Any]:
    """The line of a row that went."""
    return (
        _traced(fate.row)
        | {"dropped_by": fate.stage, "reason": fate.reason}
        | ({"detail": fate.detail} if fate.detail else {})
    )


def kept_entry(
    traced: TracedRow,
    content: bytes,
    split: str,
    volatility: float,
    notes: list[dict[str, str]],
) -> dict[str, Any]:
    """The line of a row that stays: its split, its volatility (C10) and what speaks against it.

    `content` is the row's canonical line.
    """
    return (
        _traced(traced)
        | {"split": split, "digest": digest_of(content), "volatility": volatility}
        | ({"notes": notes} if notes else {})
    )


def _traced(traced: TracedRow) -> dict[str, Any]:
    return {
        "row": traced.row.id,
        "source": traced.source,
        "file": traced.file,
        "line": traced.line,
        "role": traced.role,
        "transformations": list(traced.changes),
    }
