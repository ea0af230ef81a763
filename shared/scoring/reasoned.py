"""Answers that reason first: what a scorer judges is the final answer behind the marker."""

from __future__ import annotations

from contracts.data import Row
from shared.scoring.score import Score, Scorer


def final_answer(answer: str, marker: str) -> str:
    """What follows the last marker, outer space aside; the whole answer where there is none."""
    return answer.rpartition(marker)[2].strip()


def of_final_answer(scorer: Scorer, marker: str) -> Scorer:
    """`scorer`, shown the final answer alone."""

    def score(row: Row, answer: str) -> Score:
        return scorer(row, final_answer(answer, marker))

    return score
