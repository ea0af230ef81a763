"""A teacher's own answers to curated requests, for its student (T1).

Each request is sent as the student will see it, tools and all, so that what comes back is what the
teacher says there. In *reasoning* the teacher is told to reason first and where to put its final
answer; a trace is kept only if the job's scorer finds that answer right, and the student is shown
the request without the telling. Nothing is dropped without a reason that counts.

Requests are made in one fixed order under the keys of `teachers.Request`, and an answer is
journaled before it counts: an interrupted distillation goes on where it stopped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from contracts.data import Message, Origin, Row
from services.synthesis.asking import AnswerJournal, Desk
from services.synthesis.diversity import diversity
from services.synthesis.filters import Phrases, Rejected
from services.synthesis.generation import Advance, Synthesized
from services.synthesis.pace import Spending
from services.synthesis.prompts import last_request
from services.synthesis.teachers import Completion, Request, Seat
from shared.chat import with_tools
from shared.scoring import Scorer
from shared.scoring.reasoned import final_answer

SEQUENCE, REASONING = "teacher/v1", "reasoning/v1"
_CONCURRENCY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How a trace proves itself."""

    marker: str
    """Stands before the final answer."""
    scorer: Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What the teacher is asked."""

    answers_per_request: int = 1
    max_tokens: int = 700
    verification: Verification | None = None
    """Set where its reasoning is wanted."""

    @property
    def template(self) -> str:
        return SEQUENCE if self.verification is None else REASONING


async def distil(
    seeds: Sequence[Row],
    seat: Seat,
    journal: AnswerJournal,
    lesson: Lesson,
    *,
    spending: Spending | None = None,
    on_advance: Callable[[Advance], None] = lambda _: None,
) -> Synthesized:
    """Ask for every seed, and keep what can be learned.

    Raises whatever stops a teacher (`PeerUnavailable`, `Misconfigured`), after every answer that
    did arrive is journaled.
    """
    desk, phrases = Desk(journal, spending), Phrases.load()
    rejected: Counter[str] = Counter()
    asked_of = list(_verifiable(seeds, lesson, rejected))
    wanted = len(asked_of) * lesson.answers_per_request
    requests = _requests(asked_of, seat, lesson)
    rows: list[Row] = []
    records: list[dict[str, Any]] = []
    known: set[tuple[str, str]] = set()
    asked = 0
    while not desk.spending.exhausted and (batch := list(islice(requests, _CONCURRENCY))):
        answers = await desk.answers(batch)
        asked += len(batch)
        for request, answer in zip(batch, answers, strict=True):
            made = await asyncio.to_thread(_learnable, request, answer, lesson, phrases)
            if isinstance(made, str) and (request.seed.id, made) in known:
                made = Rejected("repeated")
            if isinstance(made, Rejected):
                rejected[made.reason] += 1
                records.append(_dropped(request, made, answer))
                continue
            known.add((request.seed.id, made))
            rows.append(_row(request, answer, made))
        on_advance(Advance(len(rows), wanted, asked, rejected.total()))
    return Synthesized(
        tuple(rows),
        asked,
        dict(sorted(rejected.items())),
        diversity([last_request(row) or "" for row in rows]),
        tuple(records),
    )


def read_trace(answer: str, marker: str) -> tuple[str, str] | Rejected:
    """The reasoning and the final answer; why they cannot be told apart where they cannot."""
    reasoning, found, _ = answer.rpartition(marker)
    if not found:
        return Rejected("no_final_answer")
    final = final_answer(answer, marker)
    if not final:
        return Rejected("no_final_answer")
    return (reasoning.strip(), final) if reasoning.strip() else Rejected("no_reasoning")


def _verifiable(seeds: Sequence[Row], lesson: Lesson, rejected: Counter[str]) -> Iterator[Row]:
    """Seeds that can be asked about; a trace that nothing can verify is not paid for."""
    for seed in seeds:
        if last_request(seed) is None:
            rejected["no_request"] += 1
        elif lesson.verification is not None and seed.expected is None:
            rejected["unverifiable"] += 1
        else:
            yield seed


def _requests(seeds: Sequence[Row], seat: Seat, lesson: Lesson) -> Iterator[Request]:
    for attempt in range(lesson.answers_per_request):
        for seed in seeds:
            yield Request(
                seed=seed,
                attempt=attempt,
                seat=seat,
                template=lesson.template,
                messages=_turns(seed, lesson),
                max_tokens=lesson.max_tokens,
            )


def _turns(seed: Row, lesson: Lesson) -> tuple[Message, ...]:
    """The seed's turns as the student is shown them; before a trace, with how to write one."""
    shown = with_tools([m.model_dump() for m in seed.messages], seed.tools)
    turns = tuple(Message.model_validate(turn) for turn in shown)
    if lesson.verification is None:
        return turns
    own = "\n".join(m.content for m in turns if m.role == "system")
    told = (
        "Reason step by step before you answer. Then write the final answer alone behind "
        f'"{lesson.verification.marker}", on a last line.'
    )
    system = Message(role="system", content="\n\n".join(filter(None, (own, told))))
    return (system, *(m for m in turns if m.role != "system"))


def _learnable(
    request: Request, answer: Completion | None, lesson: Lesson, phrases: Phrases
) -> str | Rejected:
    """The text to learn, or why it is not to be learned."""
    if answer is None:
        return Rejected("teacher_error")
    text = answer.text.strip()
    if answer.cut:
        return Rejected("cut_off")
    if not text:
        return Rejected("empty")
    if phrases.refuses(text):
        return Rejected("teacher_refusal")
    if lesson.verification is None:
        return text
    marker = lesson.verification.marker
    trace = read_trace(text, marker)
    if isinstance(trace, Rejected):
        return trace
    reasoning, final = trace
    if lesson.verification.scorer(request.seed, text).value < 1.0:
        return Rejected("wrong_answer")
    return f"{reasoning}\n{marker} {final}"


def _row(request: Request, answer: Completion | None, target: str) -> Row:
    seed, settings = request.seed, request.seat.settings
    assert answer is not None
    origin = Origin(
        model=settings.model,
        api_version=answer.api_version,
        temperature=settings.temperature,
        top_p=settings.top_p,
        prompt_template=request.template,
        seed_row=seed.id,
    )
    return seed.model_copy(
        update={
            "id": f"taught-{request.key[:20]}",
            "group": seed.cluster,
            "target": target,
            "origin": origin,
        }
    )


def _dropped(request: Request, why: Rejected, answer: Completion | None) -> dict[str, Any]:
    return {
        "kind": "dropped_answer",
        "seed": request.seed.id,
        "attempt": request.attempt,
        "reason": why.reason,
        "answer": None if answer is None else answer.text,
    }
