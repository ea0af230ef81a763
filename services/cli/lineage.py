"""What became of one row: its line in a dataset's lineage, and the redactions in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from contracts.base import Problem
from shared.errors import InvalidInput

ReadLines = Callable[[str], Iterator[bytes]]
"""The lines of a file of a dataset. Raises KeyError where it has none of that name."""


@dataclass(frozen=True, slots=True)
class RowStory:
    """A row's way through curation."""

    entry: dict[str, Any]
    redactions: tuple[dict[str, Any], ...]

    def lines(self) -> list[str]:
        e = self.entry
        said = [f"{e['row']}: {e['file']}:{e['line']}, role {e['role']}, from {e['source']}"]
        if self.redactions:
            said += [
                f"  redacted {r['type']} in {r['field']} at {r['position']}, {r['length']} long"
                for r in self.redactions
            ]
        elif e["transformations"]:
            said.append(f"  changed: {', '.join(e['transformations'])}")
        said += [f"  noted by {n['stage']}: {n['reason']} ({n['detail']})"
                 for n in e.get("notes", ())]  # fmt: skip
        if "split" in e:
            said.append(f"  in {e['split']} as {e['digest']}, volatility {e['volatility']:.2f}")
        else:
            detail = f" ({e['detail']})" if "detail" in e else ""
            said.append(f"  dropped by {e['dropped_by']}: {e['reason']}{detail}")
        return said


def explain(row: str, read: ReadLines) -> RowStory:
    """The story of `row`, an id or `file:line`. Raises InvalidInput where no row is called so."""
    rows = 0
    for entry in map(json.loads, read("lineage.jsonl")):
        rows += 1
        if row in (entry["row"], f"{entry['file']}:{entry['line']}"):
            audit = map(json.loads, read("redactions.jsonl"))
            return RowStory(entry, tuple(r for r in audit if r["row"] == entry["row"]))
    raise InvalidInput(
        [
            Problem(
                where="ROW",
                problem=f"no row of this dataset is {row!r}; it has {rows} rows",
                mend="name a row by its id, or as file:line of its source",
            )
        ]
    )
