"""Accuracy and confusion of the root-cause rules: `python -m tests.diagnosis.failures.accuracy`.

`labelled.jsonl` has three parts: `tune`, which the rules were tuned on; `report`, of the same
author and time, never tuned on; `unseen`, written after the rules were frozen, in wording chosen to
avoid them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from contracts.base import Frozen
from contracts.failures import CauseName, Trace
from shared.failures import diagnose
from shared.statistics import wilson

LABELLED = Path(__file__).with_name("labelled.jsonl")


class Labelled(Frozen):
    """A trace with the cause a person gave it."""

    cause: CauseName
    split: Literal["tune", "report", "unseen"]
    trace: Trace


@dataclass(frozen=True, slots=True)
class Judged:
    """How the rules did: (labelled, found) → traces."""

    confusion: Counter[tuple[str, str | None]]

    @property
    def right(self) -> int:
        return sum(n for (wanted, found), n in self.confusion.items() if wanted == found)

    @property
    def undetermined(self) -> int:
        return sum(n for (_, found), n in self.confusion.items() if found is None)


@cache
def labelled(split: str) -> tuple[Labelled, ...]:
    """One part of the labelled set."""
    cases = (Labelled.model_validate_json(line) for line in LABELLED.read_text().splitlines())
    return tuple(case for case in cases if case.split == split)


def judged(cases: Sequence[Labelled]) -> Judged:
    return Judged(Counter((case.cause, diagnose(case.trace).cause) for case in cases))


def main() -> None:
    for split in ("tune", "report", "unseen"):
        cases = labelled(split)
        result, n = judged(cases), len(cases)
        interval = wilson(result.right, n)
        print(
            f"{split}: {result.right} of {n} right = {result.right / n:.1%} "
            f"[{interval.low:.1%}, {interval.high:.1%}], {result.undetermined} undetermined"
        )
        for (wanted, found), count in sorted(result.confusion.items(), key=str):
            if wanted != found:
                print(f"  {wanted} → {found or 'undetermined'}: {count}")


if __name__ == "__main__":
    main()
