"""The labelling page: what `sluice label` asks in a terminal, asked in a browser (C2).

A rater sees a request, an answer and the labels to choose from, one row at a time, in an order of
the rater's own; the page names the row by a ticket that says nothing. An adjudicator sees the
labels without the names, and gets only what raters dispute. The labels are those files that
`sluice label` writes: both may be used side by side. Where raters have tokens, who labels is who
signed in.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from services.console import access, views
from services.console.settings import ConsoleSettings
from shared.errors import InvalidInput
from shared.labelling import Question, Round, read_rows

BODY_LIMIT = 4096
_RATER = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


async def posted(request: Request) -> dict[str, str]:
    """The fields of a form, each once. Raises HTTPException where the body is no short form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise HTTPException(413, "that is no form of this console")
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


@dataclass(frozen=True, slots=True)
class Seat:
    """Who labels, and as what."""

    rater: str
    adjudicates: bool

    @classmethod
    def of(cls, rater: str, role: str) -> Seat:
        """Raises HTTPException where the name could not be a file's."""
        if not _RATER.fullmatch(rater):
            raise HTTPException(422, "a rater's name is 1-64 of a-z 0-9 _ -")
        return cls(rater, role == "adjudicator")

    @property
    def url(self) -> str:
        role = {"role": "adjudicator"} if self.adjudicates else {}
        return "/label?" + urlencode({"rater": self.rater, **role})

    def ticket(self, question: Question) -> str:
        """Names a question to the page without naming the row."""
        named = f"{self.rater}\n{question.line}\n{question.item}"
        return hashlib.sha256(named.encode()).hexdigest()[:32]


class Booth:
    """One round of labelling, as the console's settings name it."""

    def __init__(self, settings: ConsoleSettings) -> None:
        """Raises InvalidInput where the file of rows cannot be read."""
        assert settings.label_rows is not None
        rows = read_rows(settings.label_rows)
        self._round = Round.of(
            settings.label_rows, rows, settings.label_lines, settings.label_round
        )
        self._labels = settings.label_names
        self._minimum = settings.label_minimum_kappa
        self._raters = settings.label_raters

    def seat(self, request: Request, rater: str, role: str) -> Seat | None:
        """Who asks, and as what; None where nobody has said.

        Raises HTTPException where raters sign in and this is not the one who did.
        """
        if self._raters:
            known = access.rater_of(self._raters, headers=request.headers, cookies=request.cookies)
            if known is None:
                raise HTTPException(403, "sign in with a rater's own token to label")
            if rater and rater != known:
                raise HTTPException(403, f"you are signed in as {known}, not as {rater}")
            rater = rater and known
        return Seat.of(rater, role) if rater else None

    def page(self, seat: Seat) -> str:
        """The next question of a seat, or why there is none."""
        halted = [] if seat.adjudicates else self._round.halted(self._minimum)
        question = None if halted else next(self._questions(seat), None)
        return self._render(
            seat=seat,
            question=question,
            ticket=seat.ticket(question) if question else "",
            halted=halted,
        )

    def door(self, request: Request) -> str:
        """The page that asks who labels, or as what the one does who signed in."""
        known = access.rater_of(self._raters, headers=request.headers, cookies=request.cookies)
        return self._render(seat=None, question=None, ticket="", halted=[], known=known or "")

    def take(self, seat: Seat, ticket: str, label: str) -> None:
        """Keep a label; one that was kept already, or that came after a halt, changes nothing.

        Raises HTTPException where the label is none of the round's.
        """
        if label not in self._labels:
            raise HTTPException(422, "no such label")
        if not seat.adjudicates and self._round.halted(self._minimum):
            return
        for question in self._questions(seat):
            if seat.ticket(question) == ticket:
                self._round.record(seat.rater, question, label)
                return

    def _questions(self, seat: Seat) -> Iterator[Question]:
        ask = self._round.disputes if seat.adjudicates else self._round.questions
        try:
            yield from ask(seat.rater)
        except InvalidInput as error:
            raise HTTPException(409, str(error)) from error

    def _render(self, **given: Any) -> str:
        return views.render("label.html", labels=self._labels, minimum=self._minimum, **given)


def routes(app: FastAPI, settings: ConsoleSettings) -> None:
    """Serve the page, where the settings name rows to label."""
    if settings.label_rows is None:
        return
    booth, one = Booth(settings), asyncio.Lock()

    @app.get("/label", response_class=HTMLResponse, include_in_schema=False)
    async def page(request: Request, rater: str = "", role: str = "") -> str:
        seat = booth.seat(request, rater, role)
        if seat is None:
            return booth.door(request)
        return await asyncio.to_thread(booth.page, seat)

    @app.post("/label", include_in_schema=False)
    async def answer(request: Request) -> Response:
        form = await posted(request)
        seat = booth.seat(request, form.get("rater", ""), form.get("role", ""))
        if seat is None:
            raise HTTPException(422, "say who labels")
        async with one:  # two clicks on one question are one label
            await asyncio.to_thread(booth.take, seat, form.get("ticket", ""), form.get("label", ""))
        return RedirectResponse(seat.url, 303)
