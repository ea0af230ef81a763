"""Distillation: a student learns from a teacher's probabilities, answers or reasoning.

Part of the job document (`contracts.job`), of the recipe, and so of the signed card: whoever reads
the card learns which model taught the adapter, and under which licence.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from contracts.base import Digest, Frozen
from contracts.economics import Pilot
from contracts.governance import Teacher

Objective = Literal["logits", "sequence", "reasoning"]


class TeacherModel(Frozen):
    """The model that teaches. Its licence must be one that the job may train on."""

    name: str = Field(min_length=1)
    """How the card names it."""
    licence: str = Field(min_length=1)
    """An SPDX identifier, or `proprietary:<owner>` with the tenant as the owner."""
    checkpoint: str | None = None
    """A model folder, or a name under `$SLUICE_HOME/models`. Logits are read from it."""
    digest: Digest | None = None
    """Of the checkpoint's weights. Given, no other one teaches; left out, intake pins it."""
    tokenizer: Digest | None = None
    """Of the checkpoint's tokenizer, pinned by intake."""
    endpoint: Teacher | None = None
    """Where it answers. Sequences and reasoning are asked for there."""
    loss: float | None = Field(default=None, gt=0)
    """Its cross-entropy on the pilots' evaluation set, to be compared with the pilots' teachers."""


class DistillationParameters(Frozen):
    """How an adapter on the job's base, the student, learns from a teacher.

    `logits` (Hinton et al., 2015) compares probabilities at every token of the rows' answers;
    `sequence` (Kim and Rush, 2016) learns the teacher's own answers to the rows' requests;
    `reasoning` learns its reasoning before an answer, where the answer is verified to be right.
    """

    objective: Objective = "logits"
    teacher: TeacherModel
    temperature: float = Field(default=2.0, gt=0)
    """Logits: softens both models' probabilities."""
    soft_share: float = Field(default=0.5, ge=0, le=1)
    """Logits: the weight of the teacher's probabilities; the rest is that of the rows' answers."""
    answers_per_request: int = Field(default=1, ge=1, le=16)
    """Sequence, reasoning: how often the teacher is asked each request."""
    answer_tokens: int = Field(default=700, ge=1, le=8192)
    """Sequence, reasoning: a longer answer is cut off, and not learned."""
    maximum_cost: float | None = Field(default=None, gt=0)
    """Stop asking when answers have cost this much, by the endpoint's price."""
    pilots: tuple[Pilot, ...] = ()
    """Small distillations that were run: whether this teacher is too strong for the student."""

    @model_validator(mode="after")
    def _reachable(self) -> DistillationParameters:
        if self.objective == "logits" and self.teacher.checkpoint is None:
            raise ValueError("logits are read from the teacher's weights; name its checkpoint")
        if self.objective != "logits" and self.teacher.endpoint is None:
            raise ValueError(f"{self.objective} asks the teacher for answers; name its endpoint")
        return self

    @property
    def recipe(self) -> str:
        """The name of the recipe that carries it out."""
        return f"{'logit' if self.objective == 'logits' else self.objective}_distillation"

    @property
    def asks(self) -> bool:
        """Whether the teacher writes the rows that train."""
        return self.objective != "logits"
