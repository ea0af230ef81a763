"""Answers with their scores: what gates and rungs judge."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.data import Row
from shared.asking.request import Answer
from shared.scoring import Score, Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One item, its answer and its score."""

    item: str
    cluster: str
    """Items of one cluster are not independent (`Row.cluster`)."""
    answer: Answer
    score: Score
    slice: str = ""
    """The part of the suite it belongs to (`meta.slice` of the row); empty for none."""

    @property
    def value(self) -> float:
        return self.score.value

    @property
    def cut_off(self) -> bool:
        """The answer ran into `max_tokens`."""
        return self.answer.finish_reason == "length"


def score_answers(
    rows: Sequence[Row], answers: Sequence[Answer], scorer: Scorer
) -> tuple[Scored, ...]:
    """Each row's answer, scored."""
    return tuple(
        Scored(
            item=row.id,
            cluster=row.cluster,
            answer=answer,
            score=scorer(row, answer.text),
            slice=str(row.meta.get("slice", "")),
        )
        for row, answer in zip(rows, answers, strict=True)
    )


async def scored_answers(
    rows: Sequence[Row], answers: Sequence[Answer], scorer: Scorer
) -> tuple[Scored, ...]:
    """`score_answers` in a thread: a sandbox or a judge may take its time."""
    return await asyncio.to_thread(score_answers, rows, answers, scorer)
