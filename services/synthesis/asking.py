"""Asking many requests at once, each answer paid for once: the journal first, then the endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from services.synthesis.pace import Pace, Spending
from services.synthesis.teachers import Completion, Request
from shared.errors import InvalidInput


class AnswerJournal(Protocol):
    """Durable answers by request key."""

    def __contains__(self, key: str) -> bool: ...

    def answer(self, key: str) -> Completion | None: ...

    def append(self, key: str, answer: Completion | None) -> None: ...


class Desk:
    """Asks seats, at their pace, and keeps what they said and what it cost."""

    def __init__(self, journal: AnswerJournal, spending: Spending | None = None) -> None:
        self._journal = journal
        self.spending = spending or Spending()
        self._paces: dict[int, Pace] = {}

    async def answers(self, batch: Sequence[Request]) -> list[Completion | None]:
        """The answer of each request, None where the endpoint will never give one.

        Raises whatever stops a seat (`PeerUnavailable`, `Misconfigured`), after every answer that
        did arrive is journaled.
        """
        results = await asyncio.gather(
            *(self._answer(request) for request in batch), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        found = [self._journal.answer(request.key) for request in batch]
        for request, answer in zip(batch, found, strict=True):
            tokens = answer.tokens if answer else 0
            self.spending.add(request.key, tokens, request.seat.settings.price_per_mtok)
        return found

    async def _answer(self, request: Request) -> None:
        if request.key in self._journal:
            return
        settings = request.seat.settings
        pace = self._paces.setdefault(id(request.seat), Pace(settings.rate_per_minute))
        await pace.turn()
        answer: Completion | None
        try:
            answer = await request.seat.port.complete(
                request.messages,
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_tokens=request.max_tokens,
                seed=request.sampling_seed,
                key=request.key,
            )
        except InvalidInput:
            answer = None
        self._journal.append(request.key, answer)
        self.spending.calls += 1
