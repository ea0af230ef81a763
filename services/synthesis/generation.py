"""The generation loop: seeds and teachers in, tagged rows and honest counts out (S1, S7, S8).

Requests are made in one fixed order (attempt by attempt over the seeds, teachers in turn), each
under a key of all that determines it. An answer is journaled before it counts; after a crash the
same order meets the same answers and continues where it stopped. An answer becomes a row when it is
well formed, unlike the others, verified, and accepted by the judges, in this order: what costs
least comes first. The loop ends when enough rows are accepted, every seed has had its attempts, or
the money is spent.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from contracts.base import digest_of
from contracts.data import Origin, Row
from services.synthesis.asking import AnswerJournal, Desk
from services.synthesis.diversity import Diversity, diversity
from services.synthesis.filters import Phrases, Rejected, judge
from services.synthesis.judging import Panel, Ruling
from services.synthesis.pace import Spending
from services.synthesis.prompts import (
    ANSWER,
    PARAPHRASE,
    AnswerTemplate,
    PromptTemplate,
    last_request,
    with_request,
)
from services.synthesis.teachers import Completion, Request, Seat
from services.synthesis.verification import Language, Verified, verify
from shared.similarity.minhash import NearDuplicates
from shared.similarity.text import normal_form


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
    answers: AnswerTemplate = ANSWER
    produces: Literal["requests", "answers"] = "requests"
    verify: Language | None = None


@dataclass(frozen=True, slots=True)
class Synthesized:
    """Accepted rows in the order of their requests, and what became of the rest."""

    rows: tuple[Row, ...]
    asked: int
    rejected: dict[str, int]
    diversity: Diversity
    records: tuple[dict[str, Any], ...] = ()
    """Evidence beside the rows: sandbox runs, and judges' votes."""
    diverged: int = 0
    """Rows that await a person, in the records."""


@dataclass(slots=True)
class _Books:
    """What the loop keeps count of."""

    accepted: list[Row] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    records: list[dict[str, Any]] = field(default_factory=list)
    diverged: int = 0


async def generate(
    seeds: Sequence[Row],
    seats: Sequence[Seat],
    journal: AnswerJournal,
    plan: Plan,
    *,
    phrases: Phrases | None = None,
    panel: Panel | None = None,
    spending: Spending | None = None,
    on_advance: Callable[[Advance], None] = lambda _: None,
) -> Synthesized:
    """Ask until `plan.rows` rows are accepted or the attempts are spent.

    Raises whatever stops a teacher (`PeerUnavailable`, `Misconfigured`), after every answer that
    did arrive is journaled.
    """
    listed = phrases or Phrases.load()
    desk = Desk(journal, spending)
    near = NearDuplicates(plan.near_duplicate_threshold)
    for seed in seeds:
        near.add(seed.id, _compared(seed, plan))
    books = _Books()
    asked = 0
    requests = _requests(seeds, seats, plan)
    while len(books.accepted) < plan.rows and not desk.spending.exhausted:
        # Never more at once than could still be needed: an answer is paid for.
        batch = list(islice(requests, min(plan.concurrency, plan.rows - len(books.accepted))))
        if not batch:
            break
        answers = await desk.answers(batch)
        asked += len(batch)
        drafts = await asyncio.to_thread(_drafts, batch, answers, plan, listed, near, books)
        rulings = await panel.rule(drafts) if panel else [None] * len(drafts)
        for row, ruling in zip(drafts, rulings, strict=True):
            _close(row, ruling, books)
        on_advance(Advance(len(books.accepted), plan.rows, asked, books.rejected.total()))
    texts = [_compared(row, plan) for row in books.accepted]
    return Synthesized(
        tuple(books.accepted),
        asked,
        dict(sorted(books.rejected.items())),
        diversity(texts),
        tuple(books.records),
        books.diverged,
    )


def _compared(row: Row, plan: Plan) -> str:
    """What makes two rows one: the request, or where answers are produced, both."""
    request = last_request(row) or ""
    return request if plan.produces == "requests" else f"{request}\n{row.target}"


def _requests(seeds: Sequence[Row], seats: Sequence[Seat], plan: Plan) -> Iterator[Request]:
    for attempt in range(plan.attempts_per_seed):
        for index, seed in enumerate(seeds):
            text = last_request(seed)
            if text is None:
                continue
            if plan.produces == "requests":
                name, messages = plan.template.name, plan.template.messages(text, attempt)
            else:
                name, messages = plan.answers.name, plan.answers.turns(seed, attempt)
            yield Request(
                seed=seed,
                attempt=attempt,
                seat=seats[(index + attempt) % len(seats)],
                template=name,
                messages=messages,
                max_tokens=plan.max_tokens,
            )


def _drafts(
    batch: Sequence[Request],
    answers: Sequence[Completion | None],
    plan: Plan,
    phrases: Phrases,
    near: NearDuplicates,
    books: _Books,
) -> list[Row]:
    """The rows of a batch that pass every check but the judges'; the rest is counted."""
    drafts = []
    for request, answer in zip(batch, answers, strict=True):
        made = _draft(request, answer, plan, phrases)
        if not isinstance(made, Rejected):
            row, record = made
            if near.find_or_add(request.key, _compared(row, plan)):
                made = Rejected("near_duplicate")
        if isinstance(made, Rejected):
            books.rejected[made.reason] += 1
        else:
            drafts.append(row)
            books.records += [record] if record else []
    return drafts


def _draft(
    request: Request, answer: Completion | None, plan: Plan, phrases: Phrases
) -> tuple[Row, dict[str, Any]] | Rejected:
    """A tagged row and the record of its sandbox run, or why there is none."""
    if answer is None:
        return Rejected("teacher_error")
    seed = request.seed
    if plan.produces == "requests":
        judged = judge(seed, answer.text, phrases)
        if isinstance(judged, Rejected):
            return judged
        return _tagged(request, answer, {"messages": with_request(seed, judged.text)}), {}
    proved = _proved(seed, answer.text, plan, phrases)
    if isinstance(proved, Rejected):
        return proved
    if normal_form(proved.target) == normal_form(seed.target or ""):
        return Rejected("identical")
    row = _tagged(request, answer, {"target": proved.target})
    if not proved.record:
        return row, {}
    record = {"kind": "sandbox_run", "row": row.id, **proved.record}
    run = digest_of(json.dumps(record, sort_keys=True).encode())
    origin = row.origin and row.origin.model_copy(update={"sandbox_run": run})
    return row.model_copy(update={"origin": origin}), record | {"run": run}


def _proved(seed: Row, answer: str, plan: Plan, phrases: Phrases) -> Verified | Rejected:
    text = phrases.stripped(answer)
    if phrases.refuses(answer) or phrases.refuses(text):
        return Rejected("teacher_refusal")
    if not text:
        return Rejected("empty")
    return Verified(text) if plan.verify is None else verify(plan.verify, seed, text)


def _tagged(request: Request, answer: Completion, made: dict[str, Any]) -> Row:
    seed, settings = request.seed, request.seat.settings
    return seed.model_copy(
        update={
            **made,
            "id": f"syn-{request.key[:20]}",
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


def _close(row: Row, ruling: Ruling | None, books: _Books) -> None:
    """Take a draft in as the judges rule; without judges it is accepted."""
    if ruling is None:
        books.accepted.append(row)
        return
    votes = ruling.record()
    books.records.append({"kind": "ruling", "row": row.id, "verdict": ruling.verdict,
                          "votes": votes})  # fmt: skip
    if ruling.verdict == "accepted":
        books.accepted.append(row.model_copy(update={"meta": {**row.meta, "judges": votes}}))
    elif ruling.verdict == "diverged":
        books.diverged += 1
        books.rejected["judges_diverged"] += 1
        books.records[-1]["content"] = row.model_dump(mode="json", exclude_defaults=True)
    else:
        books.rejected[f"judges_{ruling.verdict}"] += 1
