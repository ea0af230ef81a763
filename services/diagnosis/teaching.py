"""The teacher of a distillation, at the door: there, licensed, itself, and legible to the student.

Logits need one vocabulary in both models. Where there are two, the teacher's answers can be learned
all the same, so the refusal offers sequence distillation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from contracts.base import Problem
from contracts.distillation import DistillationParameters, TeacherModel
from contracts.job import AdaptationJob, BaseModelRef
from shared.errors import InvalidInput
from shared.models import base_digest, digest_cache, resolve_base, tokenizer_digest
from shared.vocabulary import vocabulary_difference

TEACHER = "method.distillation.teacher"


def teaching_problems(job: AdaptationJob) -> Iterator[Problem]:
    """What is wrong with the distillation that the document alone shows."""
    wanted = job.method.distillation
    if wanted is None:
        if job.method.name == "distillation":
            yield Problem(
                where="method.distillation",
                problem="distillation learns from a teacher, and none is named",
                mend="Set method.distillation.teacher; see examples/methods.",
            )
        return
    if wanted.asks and job.synthesis is not None:
        yield Problem(
            where="synthesis",
            problem=f"{wanted.objective} distillation asks its teacher for the rows itself",
            mend="Drop synthesis from the job.",
        )
    if wanted.objective == "reasoning" and job.behaviour.answer_marker is None:
        yield Problem(
            where="behaviour.answer_marker",
            problem="a trace is verified by its final answer, and nothing says where that begins",
            mend='Set it to what stands before the final answer, such as "Answer:".',
        )


def pinned_teacher(job: AdaptationJob, home: Path) -> tuple[TeacherModel | None, list[Problem]]:
    """The teacher with its checkpoint's digests, and what is wrong with the checkpoint.

    Nothing to pin (None) where the job distils nothing, or its teacher is an endpoint alone.
    """
    wanted = job.method.distillation
    if wanted is None or wanted.teacher.checkpoint is None:
        return None, []
    teacher, cache = wanted.teacher, digest_cache(home)
    try:
        folder = resolve_base(BaseModelRef(model=wanted.teacher.checkpoint), home)
    except InvalidInput as error:
        return None, [
            problem.model_copy(update={"where": f"{TEACHER}.checkpoint"})
            for problem in error.problems
        ]
    found = teacher.model_copy(
        update={
            "digest": base_digest(folder, cache=cache),
            "tokenizer": tokenizer_digest(folder, cache=cache),
        }
    )
    problems = [
        Problem(
            where=f"{TEACHER}.{field}",
            problem=f"{wanted.teacher.checkpoint} is {is_now}, and the job names {named}",
            mend="Put the named checkpoint back, or name the one that is there.",
        )
        for field, named, is_now in (
            ("digest", teacher.digest, found.digest),
            ("tokenizer", teacher.tokenizer, found.tokenizer),
        )
        if named is not None and named != is_now
    ]
    try:
        student = resolve_base(job.base, home)
    except InvalidInput:
        return found, problems  # named already, as the job's base
    if wanted.objective == "logits":
        problems += _logit_problems(wanted, student, folder, home)
    return found, problems


def _logit_problems(
    wanted: DistillationParameters, student: Path, teacher: Path, home: Path
) -> Iterator[Problem]:
    cache = digest_cache(home)
    if base_digest(student, cache=cache) == base_digest(teacher, cache=cache):
        yield Problem(
            where=f"{TEACHER}.checkpoint",
            problem="the teacher is the student's own base: there is nothing to learn from it",
            mend="Name a stronger teacher, or as the base a student pruned from this one.",
        )
    try:
        difference = vocabulary_difference(student, teacher)
    except (OSError, ValueError) as error:
        difference = f"a tokenizer cannot be read: {error}"
    if difference:
        yield Problem(
            where="method.distillation.objective",
            problem=f"logits of {wanted.teacher.name} do not fit the student: {difference}",
            mend="Set it to sequence, with the teacher's endpoint: answers need no common "
            "vocabulary.",
        )
