"""What a job asks of its data: how rows are curated, and which rows are made.

Part of the job document (`contracts.job`). Every default is the specification's number.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from contracts.base import Frozen, Slug, Uri

MOST_CONTRAST_PAIRS = 48
"""As many pairs as curation has."""

DataRole = Literal["positive", "boundary", "negative", "rehearsal"]


class Teacher(Frozen):
    """A teacher behind an OpenAI-compatible endpoint; `url` None is our own serving service."""

    model: str = "base"
    url: str | None = None
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    override_reason: str | None = None
    key_variable: str | None = Field(default=None, pattern=r"^SLUICE_KEY_[A-Z0-9_]+$")
    """The environment variable of synthesis that holds the endpoint's API key. The prefix keeps
    jobs, which come from tenants, away from every other secret of the process."""
    rate_per_minute: float | None = Field(default=None, gt=0)
    """Requests the endpoint allows; None: as fast as it answers."""
    price_per_mtok: float = Field(default=0.0, ge=0)
    """Of prompt and answer tokens alike."""

    @model_validator(mode="after")
    def _diverse(self) -> Teacher:
        if (self.temperature < 1.0 or self.top_p != 0.95) and not self.override_reason:
            raise ValueError(
                "synthesis needs temperature >= 1.0 and top_p = 0.95 (S1); "
                "set override_reason to depart from it"
            )
        return self


class Judge(Frozen):
    """A frozen model that judges what teachers wrote, behind an OpenAI-compatible endpoint."""

    model: str
    url: str | None = None
    key_variable: str | None = Field(default=None, pattern=r"^SLUICE_KEY_[A-Z0-9_]+$")
    rate_per_minute: float | None = Field(default=None, gt=0)
    price_per_mtok: float = Field(default=0.0, ge=0)


class JudgePanel(Frozen):
    """Two judges vote on every row; a judge votes only once it agrees with people (S6)."""

    judges: tuple[Judge, Judge]
    gold: Uri
    """JSON Lines of rows with `expected: {"accept": true}` or false, as people judged them."""
    minimum_score: float = Field(default=4.0, ge=1, le=5)
    """On logical consistency, relevance and formatting, of 5."""
    divergence: float = Field(default=1.0, ge=0)
    """Points on a dimension above which two judges diverge, and the row awaits adjudication."""
    minimum_kappa: float = Field(default=0.70, ge=0, le=1)
    """Agreement with the gold labels below which a judge has no vote."""

    @model_validator(mode="after")
    def _two(self) -> JudgePanel:
        first, second = self.judges
        if (first.model, first.url) == (second.model, second.url):
            raise ValueError("the two judges are one model: its votes would be counted twice")
        return self


class Synthesis(Frozen):
    """Rows to synthesize from the curated seeds."""

    rows: int = Field(ge=1, le=100_000)
    teachers: tuple[Teacher, ...] = Field(default=(Teacher(),), min_length=1)
    produces: Literal["requests", "answers"] = "requests"
    """Other wordings of the seeds' requests, or other answers to them."""
    verify: Literal["python", "sql", "json_schema"] | None = None
    """How produced answers prove themselves against `expected` of their seed (S4)."""
    panel: JudgePanel | None = None
    templates: Uri | None = None
    """JSON Lines of `contracts.data.RowTemplate`, filled in before a teacher is asked."""
    simulator: Uri | None = None
    """A Python program that prints rows, run in the sandbox before a teacher is asked."""
    maximum_cost: float | None = Field(default=None, gt=0)
    """Stop asking when answers have cost this much, by the prices given."""

    @model_validator(mode="after")
    def _sound(self) -> Synthesis:
        if self.verify and self.produces != "answers":
            raise ValueError("verify checks produced answers; set produces: answers")
        if self.panel:
            teachers = {(teacher.model, teacher.url) for teacher in self.teachers}
            if any((judge.model, judge.url) in teachers for judge in self.panel.judges):
                raise ValueError("a judge is not one of the teachers: it would judge itself")
        return self


def _documented_composition() -> dict[Literal["positive", "boundary", "negative"], float]:
    return {"positive": 0.8, "boundary": 0.1, "negative": 0.1}


class Mandate(Frozen):
    """A rule of law that some regions have: requests like this must be refused there."""

    id: Slug
    regions: tuple[str, ...] = Field(min_length=1)
    """ISO 3166 codes (`DE`, `US-CA`), or `*` for everywhere."""
    pattern: str = Field(min_length=1)
    """Regular expression, any case, found in the requests that the rule is about."""
    reason: str = Field(min_length=1)
    """The law, for whoever reads the refusal log."""

    @model_validator(mode="after")
    def _compiles(self) -> Mandate:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"the pattern is no regular expression: {error}") from error
        return self


class CurationPolicy(Frozen):
    """What curation enforces."""

    composition: dict[Literal["positive", "boundary", "negative"], float] = Field(
        default_factory=_documented_composition
    )
    composition_tolerance: float = Field(default=0.05, ge=0, le=1)
    near_duplicate_threshold: float = Field(default=0.9, gt=0, le=1)
    """Jaccard similarity at which two rows are the same row."""
    semantic_threshold: float | None = Field(default=None, gt=0, le=1)
    """Cosine of sentence vectors at which two rows say the same; None compares no meaning (C5)."""
    paraphrase_threshold: float | None = Field(default=None, gt=0, le=1)
    """Cosine at which a training request is an evaluation item in other words (C6)."""
    validation_share: float = Field(default=0.05, ge=0, lt=1)
    annotations: Uri | None = None
    """JSON Lines of `contracts.data.Annotation`; a row may also carry `meta.annotations`, an
    object of rater → label."""
    minimum_kappa: float = Field(default=0.70, ge=0, le=1)
    """Raters who agree less than this on a line of the rubric halt the run (C2)."""
    refused_labels: tuple[str, ...] = ("reject",)
    """A row that raters or an expert settle on one of these is not trained on."""
    private_terms: tuple[Annotated[str, Field(min_length=3)], ...] = ()
    """Names of schemas, tables and projects that leave the rows as `<PRIVATE>` (C3)."""
    canaries: int = Field(default=0, ge=0, le=64)
    """Canary strings to plant in the training rows, for G7 to look for (C10)."""
    rehearsal_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the dataset that `rehearsal` rows are to have; None takes them all (C9)."""
    contrast_pairs: int = Field(default=0, ge=0, le=MOST_CONTRAST_PAIRS)
    """Pairs of ours to mix in: a harmful request that is refused with its reason, and a harmless
    one in almost the same words that is answered. They keep an adapter from losing its refusals,
    or from refusing by keyword (G6)."""
    withheld_rows: tuple[str, ...] = ()
    """Rows, by id, that are not trained on: an earlier candidate gave them away (G7)."""
    noisy_rows: Literal["report", "drop"] = "report"
    """What becomes of rows whose label others contradict (C7)."""
    regions: tuple[str, ...] = ()
    """Where the adapter will serve; none given means that every mandate binds."""
    mandates: tuple[Mandate, ...] = ()
    licences: tuple[str, ...] = (
        "Apache-2.0",
        "MIT",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "CC-BY-4.0",
        "Unlicense",
    )
    """Licences this job may train on; its own tenant's `proprietary:<tenant>` is always allowed."""
