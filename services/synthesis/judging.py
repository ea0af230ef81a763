"""Two frozen judges score every row on a rubric; a judge votes once it agrees with people (S6).

A judge gives 1 to 5 on logical consistency, relevance and formatting, and up to 2 points of penalty
for verbosity and for formulaic transitions, which are taken off formatting. A vote accepts when no
dimension is below the minimum. Judges whose votes differ, or who are further apart than the panel
allows on a dimension, have *diverged*: the row is set aside for a person with both rationales.

Before the first vote each judge scores the gold rows that people judged; Cohen's kappa below the
minimum takes its vote away. Without two judges nothing is accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from contracts.data import Message, Row
from contracts.governance import JudgePanel
from services.synthesis.asking import Desk
from services.synthesis.teachers import Completion, Request, Seat
from shared.statistics.agreement import cohen_kappa

TEMPLATE = "judge/v1"
DIMENSIONS = ("logical_consistency", "relevance", "formatting")
PENALTIES = ("verbosity", "formulaic_transitions")
_MAX_TOKENS = 400
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)
RUBRIC = (
    "You judge one training example: a request and an answer. Score 1 to 5, decimals allowed:\n"
    "- logical_consistency: every step and value follows from the request; no contradiction\n"
    "- relevance: the answer does what is asked, all of it and nothing else\n"
    "- formatting: the answer has the form the request calls for\n"
    "Then give penalties of 0 to 2:\n"
    "- verbosity: words that could go without loss\n"
    "- formulaic_transitions: stock phrases such as 'moreover', 'in conclusion', 'it is important "
    "to note'\n"
    'Write one JSON object with these five keys and "rationale", a sentence that names the reason.'
)


@dataclass(frozen=True, slots=True)
class Vote:
    """One judge's scores of one row."""

    judge: str
    scores: dict[str, float]
    penalties: dict[str, float]
    rationale: str

    def final(self) -> dict[str, float]:
        """Scores by dimension, penalties taken off formatting."""
        off = sum(self.penalties.values())
        return {**self.scores, "formatting": max(1.0, self.scores["formatting"] - off)}

    def accepts(self, minimum: float) -> bool:
        return min(self.final().values()) >= minimum


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far a judge agrees with people on the gold rows."""

    judge: str
    kappa: float | None
    items: int
    may_vote: bool


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the panel makes of a row."""

    verdict: str
    """`accepted`, `rejected`, `diverged`, or `unreadable`: a judge gave no scores."""
    votes: tuple[Vote, ...] = ()

    def record(self) -> list[dict[str, Any]]:
        return [{**asdict(vote), "final": vote.final()} for vote in self.votes]


class Panel:
    """Seats of judges, and the desk they are asked at."""

    def __init__(self, settings: JudgePanel, seats: Sequence[Seat], desk: Desk) -> None:
        self._settings = settings
        self._seats = tuple(seats)
        self._desk = desk

    async def calibrate(self, gold: Sequence[Row]) -> tuple[Calibration, ...]:
        """Each judge against people, on rows with `expected.accept`."""
        truth = [str(_accepted(row)) for row in gold]
        found = []
        for seat in self._seats:
            said = []
            for row in gold:
                [answer] = await self._desk.answers([self._request(seat, row)])
                vote = read_vote(seat.settings.model, answer)
                said.append(str(vote is not None and vote.accepts(self._settings.minimum_score)))
            kappa = cohen_kappa(list(zip(truth, said, strict=True))).kappa
            able = kappa is not None and kappa >= self._settings.minimum_kappa
            found.append(Calibration(seat.settings.model, kappa, len(gold), able))
        return tuple(found)

    async def rule(self, rows: Sequence[Row]) -> list[Ruling]:
        """A ruling for each row, in order."""
        requests = [self._request(seat, row) for row in rows for seat in self._seats]
        answers = await self._desk.answers(requests)
        width = len(self._seats)
        return [
            self._ruling(answers[start : start + width]) for start in range(0, len(answers), width)
        ]

    def _ruling(self, answers: Sequence[Completion | None]) -> Ruling:
        read = [
            read_vote(seat.settings.model, answer)
            for seat, answer in zip(self._seats, answers, strict=True)
        ]
        votes = tuple(vote for vote in read if vote is not None)
        if len(votes) < len(read):
            return Ruling("unreadable", votes)
        accepts = [vote.accepts(self._settings.minimum_score) for vote in votes]
        finals = [vote.final() for vote in votes]
        apart = max(abs(finals[0][d] - finals[1][d]) for d in DIMENSIONS)
        if len(set(accepts)) > 1 or apart > self._settings.divergence:
            return Ruling("diverged", votes)
        return Ruling("accepted" if accepts[0] else "rejected", votes)

    def _request(self, seat: Seat, row: Row) -> Request:
        turns = "\n".join(f"{m.role}: {m.content}" for m in row.messages)
        shown = f"Request:\n{turns}\n\nAnswer:\n{row.target}"
        return Request(
            seed=row,
            attempt=0,
            seat=seat,
            template=TEMPLATE,
            messages=(Message(role="system", content=RUBRIC), Message(role="user", content=shown)),
            max_tokens=_MAX_TOKENS,
        )


def read_vote(judge: str, answer: Completion | None) -> Vote | None:
    """The scores in a judge's answer; None where one is missing or out of its range."""
    found = _OBJECT.search(answer.text) if answer else None
    try:
        given = json.loads(found.group()) if found else {}
        scores = {name: float(given[name]) for name in DIMENSIONS}
        penalties = {name: float(given.get(name, 0.0)) for name in PENALTIES}
    except (ValueError, KeyError, TypeError):
        return None
    if not all(1 <= s <= 5 for s in scores.values()):
        return None
    if not all(0 <= p <= 2 for p in penalties.values()):
        return None
    return Vote(judge, scores, penalties, str(given.get("rationale", ""))[:1000])


def _accepted(row: Row) -> bool:
    expected = row.expected
    return isinstance(expected, dict) and expected.get("accept") is True
