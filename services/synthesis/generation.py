"""The generation loop: seeds and teachers in, tagged rows and honest counts out (S1, S7, S8).

Requests are made in one fixed order (attempt by attempt over the seeds, teachers in turn), each
under a key of all that determines it. An answer is journaled before it counts; after a crash the
same order meets the same answers and continues where it stopped. The loop ends when enough rows
are accepted or every seed has had its attempts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from contracts.data import Origin, Row
from services.synthesis.diversity import Diversity, diversity
from services.synthesis.filters import Phrases, Rejected, judge
from services.synthesis.prompts import PARAPHRASE, PromptTemplate, last_request, with_request
from services.synthesis.teachers import Completion, Request, Seat
from shared.errors import InvalidInput
from shared.similarity.minhash import NearDuplicates


class AnswerJournal(Protocol):
    """Durable answers by request key."""

    def __contains__(self, key: str) -> bool: ...

    def answer(self, key: str) -> Completion | None: ...

    def append(self, key: str, answer: Completion | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Advance:
    """How far the loop is."""

    accepted: int
    wanted: int
    asked: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to generate."""

    rows: int
    attempts_per_seed: int = 4
    concurrency: int = 4
    max_tokens: int = 160
    near_duplicate_threshold: float = 0.9
    template: PromptTemplate = PARAPHRASE


@dataclass(frozen=True, slots=True)
class Synthesized:
    """Accepted rows in the order of their requests, and what became of the rest."""

    rows: tuple[Row, ...]
    asked: int
    rejected: dict[str, int]
    diversity: Diversity


async def generate(
    seeds: Sequence[Row],
    seats: Sequence[Seat],
    journal: AnswerJournal,
    plan: Plan,
    *,
    phrases: Phrases | None = None,
    on_advance: Callable[[Advance], None] = lambda _: None,
) -> Synthesized:
    """Ask until `plan.rows` rows are accepted or the attempts are spent.

    Raises whatever stops a teacher (`PeerUnavailable`, `Misconfigured`), after every answer that
    did arrive is journaled.
    """
    listed = phrases or Phrases.load()
    near = NearDuplicates(plan.near_duplicate_threshold)
    for seed in seeds:
        near.add(seed.id, last_request(seed) or "")
    accepted: list[Row] = []
    rejected: Counter[str] = Counter()
    asked = 0
    requests = _requests(seeds, seats, plan)
    while len(accepted) < plan.rows:
        # Never more at once than could still be needed: an answer is paid for.
        batch = list(islice(requests, min(plan.concurrency, plan.rows - len(accepted))))
        if not batch:
            break
        for request, answer in zip(batch, await _answers(batch, journal), strict=True):
            asked += 1
            outcome = _row(request, answer, listed, near)
            if isinstance(outcome, Rejected):
                rejected[outcome.reason] += 1
            else:
                accepted.append(outcome)
        on_advance(Advance(len(accepted), plan.rows, asked, rejected.total()))
    texts = [last_request(row) or "" for row in accepted]
    return Synthesized(tuple(accepted), asked, dict(sorted(rejected.items())), diversity(texts))


def _requests(seeds: Sequence[Row], seats: Sequence[Seat], plan: Plan) -> Iterator[Request]:
    for attempt in range(plan.attempts_per_seed):
        for index, seed in enumerate(seeds):
            text = last_request(seed)
            if text is None:
                continue
            yield Request(
                seed=seed,
                attempt=attempt,
                seat=seats[(index + attempt) % len(seats)],
                template=plan.template.name,
                messages=plan.template.messages(text, attempt),
                max_tokens=plan.max_tokens,
            )


async def _answers(batch: Sequence[Request], journal: AnswerJournal) -> list[Completion | None]:
    results = await asyncio.gather(
        *(_answer(request, journal) for request in batch), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [journal.answer(request.key) for request in batch]


async def _answer(request: Request, journal: AnswerJournal) -> None:
    if request.key in journal:
        return
    settings = request.seat.settings
    answer: Completion | None
    try:
        answer = await request.seat.port.complete(
            request.messages,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=request.max_tokens,
            seed=request.sampling_seed,
        )
    except InvalidInput:
        answer = None
    journal.append(request.key, answer)


def _row(
    request: Request, answer: Completion | None, phrases: Phrases, near: NearDuplicates
) -> Row | Rejected:
    if answer is None:
        return Rejected("teacher_error")
    seed, settings = request.seed, request.seat.settings
    verdict = judge(seed, answer.text, phrases)
    if isinstance(verdict, Rejected):
        return verdict
    if near.find_or_add(request.key, verdict.text):
        return Rejected("near_duplicate")
    return seed.model_copy(
        update={
            "id": f"syn-{request.key[:20]}",
            "messages": with_request(seed, verdict.text),
            "group": seed.cluster,
            "origin": Origin(
                model=settings.model,
                api_version=answer.api_version,
                temperature=settings.temperature,
                top_p=settings.top_p,
                prompt_template=request.template,
                seed_row=seed.id,
            ),
        }
    )
