"""Rows on which two judges diverge, decided by a person (S6).

Synthesis sets such a row aside in its records, with both votes. The person sees the request, the
answer and both votes, and neither who wrote the answer nor which judge is which. Every decision is
on disk before the next row is shown. Accepted rows become a file of rows, a source for the next
job; all decisions together are gold labels, which the judges can be calibrated on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contracts.base import Problem
from contracts.data import Row, parse_row
from shared.errors import InvalidInput
from shared.labelling import Question, blind

Decision = Literal["accept", "reject"]
DECISIONS: tuple[Decision, ...] = ("accept", "reject")
LINE = "should this row teach"


@dataclass(frozen=True, slots=True)
class Diverged:
    """A row that waits, and how its judges voted."""

    row: Row
    votes: tuple[dict[str, Any], ...]

    def question(self) -> Question:
        """The row as the person sees it: votes in the order of what they say, without names."""
        said = sorted(_said(vote) for vote in self.votes)
        return Question(self.row.id, LINE, "\n".join((blind(self.row), *said)))

    def accepts(self, judge: str, minimum: float) -> bool:
        """Whether `judge` would have let the row in."""
        [final] = [vote["final"] for vote in self.votes if vote["judge"] == judge]
        return bool(min(final.values()) >= minimum)


def _said(vote: dict[str, Any]) -> str:
    final = ", ".join(f"{name} {score:.1f}" for name, score in sorted(vote["final"].items()))
    return f"  a judge: {final}; {vote['rationale'] or 'no reason given'}"


def diverged(lines: Iterable[bytes]) -> list[Diverged]:
    """The rows that wait in a generation's records. Raises InvalidInput on a malformed line."""
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if record["kind"] == "ruling" and record["verdict"] == "diverged":
                found.append(Diverged(parse_row(record["content"]), tuple(record["votes"])))
        except (ValueError, KeyError, TypeError) as error:
            problem = Problem(
                where=f"records:{number}",
                problem=f"is no record of a generation: {error!r}"[:300],
                mend="name the records of a run, or give the run with --run",
            )
            raise InvalidInput([problem]) from error
    return found


@dataclass(frozen=True, slots=True)
class Adjudication:
    """The decisions on one set of rows, kept beside the file they make."""

    out: Path
    rows: tuple[Diverged, ...]

    def open(self) -> Iterator[Diverged]:
        """Rows nobody has decided, in the order of the records."""
        decided = self.decisions()
        yield from (one for one in self.rows if one.row.id not in decided)

    def record(self, row: Row, decision: Decision, by: str) -> None:
        """Keep a decision: on disk before the next row is shown."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"row": row.id, "decision": decision, "by": by}, sort_keys=True)
        with self._kept.open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def decisions(self) -> dict[str, tuple[Decision, str]]:
        """Row → (decision, who); the last decision on a row counts."""
        if not self._kept.exists():
            return {}
        entries = map(json.loads, self._kept.read_bytes().splitlines())
        return {e["row"]: (e["decision"], e["by"]) for e in entries}

    def write(self) -> int:
        """Write the accepted rows, with who accepted them and both votes; how many they are."""
        decided = self.decisions()
        accepted = [one for one in self.rows if decided.get(one.row.id, ("",))[0] == "accept"]
        self._replace(
            self.out,
            (
                one.row.model_copy(
                    update={
                        "meta": {
                            **one.row.meta,
                            "judges": [dict(vote) for vote in one.votes],
                            "adjudicated_by": decided[one.row.id][1],
                        }
                    }
                )
                for one in accepted
            ),
        )
        return len(accepted)

    def write_gold(self, path: Path) -> None:
        """Write every decided row as a gold label, for `synthesis.panel.gold` of a job."""
        decided = self.decisions()
        self._replace(
            path,
            (
                one.row.model_copy(
                    update={"expected": {"accept": decided[one.row.id][0] == "accept"}}
                )
                for one in self.rows
                if one.row.id in decided
            ),
        )

    def sided_with(self, minimum: float) -> dict[str, tuple[int, int]]:
        """Judge → (rows decided as it voted, rows decided)."""
        decided = self.decisions()
        found: dict[str, tuple[int, int]] = {}
        for one in self.rows:
            if one.row.id not in decided:
                continue
            accepted = decided[one.row.id][0] == "accept"
            for vote in one.votes:
                right, total = found.get(vote["judge"], (0, 0))
                right += one.accepts(vote["judge"], minimum) == accepted
                found[vote["judge"]] = right, total + 1
        return found

    @property
    def _kept(self) -> Path:
        return self.out.with_name(f"{self.out.name}.decisions")

    def _replace(self, path: Path, rows: Iterable[Row]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with part.open("wb") as file:
            for row in rows:
                file.write(row.model_dump_json(exclude_defaults=True).encode() + b"\n")
        part.replace(path)
