"""How a model judges answers by a rubric, and by which answers it shows that it can."""

from __future__ import annotations

from pydantic import Field, model_validator

from contracts.base import Frozen
from contracts.governance import Judge


class GoldAnswer(Frozen):
    """An answer that people judged."""

    request: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    accepted: bool


class Rubric(Frozen):
    """The scorer `rubric`: a judge model scores an answer from 1 to 5."""

    text: str = Field(min_length=1)
    """What makes an answer good, in words for the judge."""
    judge: Judge
    """Another model than the one adapted, so its `url` is named."""
    minimum_score: int = Field(default=4, ge=2, le=5)
    """The score from which an answer is right."""
    gold: tuple[GoldAnswer, ...] = Field(min_length=10)
    """Answers that people judged, accepted ones and others. The judge scores them first."""
    minimum_kappa: float = Field(default=0.70, ge=0, le=1)
    """Agreement with the people below which the judge scores nothing."""

    @model_validator(mode="after")
    def _sound(self) -> Rubric:
        if self.judge.url is None:
            raise ValueError("name the judge's url: a base that is adapted is no judge of itself")
        if len({gold.accepted for gold in self.gold}) < 2:
            raise ValueError("gold needs accepted answers and others, or agreement means nothing")
        return self
