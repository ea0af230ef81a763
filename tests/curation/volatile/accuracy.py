"""Precision and recall of the volatile-fact rules: `python -m tests.curation.volatile.accuracy`.

`labelled.jsonl` has three parts: `tune`, which the rules were tuned on; `report`, of the same
author and time, never tuned on; `unseen`, written after the rules, in wording chosen to avoid
them. Three false alarms on `unseen` led to narrower rules: of that part only recall is untouched.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from contracts.base import Frozen
from contracts.data import Row
from shared.doctrine.volatility import threshold, volatility
from shared.statistics import wilson

LABELLED = Path(__file__).with_name("labelled.jsonl")


class Labelled(Frozen):
    """A row with the kind of volatile fact a person saw in its target; None if it is stable."""

    kind: str | None
    split: Literal["tune", "report", "unseen"]
    row: Row


@dataclass(frozen=True, slots=True)
class Counts:
    """Hits, false alarms and misses."""

    hits: int
    false_alarms: int
    misses: int

    @property
    def precision(self) -> float:
        return self.hits / (self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        return self.hits / (self.hits + self.misses)


@cache
def labelled(split: str) -> tuple[Labelled, ...]:
    """One part of the labelled set."""
    cases = (Labelled.model_validate_json(line) for line in LABELLED.read_text().splitlines())
    return tuple(case for case in cases if case.split == split)


def refused(row: Row) -> tuple[str, ...]:
    """The kinds a refused row is refused for; empty for a row that is let through."""
    found = volatility(row)
    return found.kinds if found.score >= threshold() else ()


def counts(split: str, kind: str | None = None) -> Counts:
    """Of refusals at all, or of refusals that name `kind`."""
    tally = Counter(
        (case.kind is not None, bool(refused(case.row)))
        if kind is None
        else (case.kind == kind, kind in refused(case.row))
        for case in labelled(split)
    )
    return Counts(tally[True, True], tally[False, True], tally[True, False])


def main() -> None:
    for split in ("tune", "report", "unseen"):
        kinds = sorted({case.kind for case in labelled(split) if case.kind})
        for kind in (None, *kinds):
            found = counts(split, kind)
            alarms, wanted = found.hits + found.false_alarms, found.hits + found.misses
            low, high = (wilson(found.hits, wanted).low, wilson(found.hits, wanted).high)
            print(
                f"{split} {kind or 'any'}: precision {found.hits}/{alarms}, "
                f"recall {found.hits}/{wanted} [{low:.0%}, {high:.0%}]"
            )


if __name__ == "__main__":
    main()
