"""Following a run live: facts from its log, progress as it is published, until the run closes.

Facts are read from the run log by sequence; the live subscription only says when to look, so a
broken connection can delay a fact and never lose one.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress

import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from contracts import subjects
from contracts.base import Service
from contracts.progress import Progress
from contracts.run import Run
from contracts.subjects import RunRef
from services.cli.numbers import duration
from services.cli.outcome import EXIT_CODES
from services.cli.reading import load_run, subjects_in
from services.cli.screen import View
from services.cli.session import Session
from shared.errors import TransientError
from shared.messaging.runlog import RunLog

LOOK_EVERY_S = 1.0
SILENCE_S = 15.0
"""Say that we are still here after this long without news."""


async def follow_run(opened: Session, ref: RunRef, view: View, *, after: int = 0) -> int:
    """Show the run until it closes; returns the exit code of its outcome.

    `after` skips facts up to that sequence, and an outcome that stood then does not count.

    Raises:
        NoSuchRun: it was never submitted.
    """
    await load_run(opened, ref)
    follower = _Follower(opened, ref, view, after)
    facts = await opened.connection.subscribe(
        subjects.run_log(ref.tenant, ref.run), cb=follower.on_fact
    )
    news = await opened.connection.subscribe(
        subjects.progress(ref.tenant, ref.run, "*"), cb=follower.on_progress
    )
    try:
        await follower.show_last_progress()
        return await follower.to_the_end()
    finally:
        for subscription in (facts, news):
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()


class _Follower:
    def __init__(self, opened: Session, ref: RunRef, view: View, after: int) -> None:
        self._opened = opened
        self._ref = ref
        self._view = view
        self._seen = after
        self._after = after
        self._log = RunLog(opened.js)
        self._look = asyncio.Event()
        self._newest = time.monotonic()
        self._spoke = time.monotonic()
        self._doing = "waiting for diagnosis to take the job"

    async def on_fact(self, _message: Msg) -> None:
        self._look.set()

    async def on_progress(self, message: Msg) -> None:
        self._show_progress(message.data)

    def _show_progress(self, body: bytes) -> None:
        try:
            news = Progress.model_validate_json(body)
        except ValidationError:
            return  # someone else's message on our subject: not ours to fail on
        self._doing = f"{news.stage}: {news.message}"
        self._heard()
        self._view.progress(news)

    def _heard(self) -> None:
        self._newest = self._spoke = time.monotonic()

    async def show_last_progress(self) -> None:
        """What each stage last said, for a watcher who comes late."""
        run = await self._log.load(self._ref)
        if run.closed:
            return
        pattern = subjects.progress(self._ref.tenant, self._ref.run, "*")
        newest: tuple[int, bytes] = (0, b"")
        for subject in await subjects_in(self._opened.js, "PROGRESS", pattern):
            with suppress(NotFoundError):
                last = await self._opened.js.get_last_msg("PROGRESS", subject, direct=True)
                newest = max(newest, (int(last.seq or 0), last.data or b""))
        if newest[1]:
            self._show_progress(newest[1])

    async def to_the_end(self) -> int:
        while True:
            run = await self._news()
            if run.closed and run.version > self._after:
                self._view.outcome(run)
                return EXIT_CODES[run.status]
            await self._break_silence(run)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look.wait()
            self._look.clear()

    async def _news(self) -> Run:
        while True:
            try:
                run = await self._log.load(self._ref)
            except TransientError as error:
                self._view.waiting(f"{error}; trying again")
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            for record in run.log:
                if record.seq > self._seen:
                    self._view.fact(record)
                    self._seen = record.seq
                    self._doing = f"after {record.event.producer()} {record.event.token()}"
                    self._heard()
            return run

    async def _break_silence(self, run: Run) -> None:
        if time.monotonic() - self._spoke < SILENCE_S:
            return
        self._spoke = time.monotonic()
        text = f"still {self._doing} ({duration(time.monotonic() - self._newest)} without news)"
        if run.version == 0 and not await self._answers(Service.DIAGNOSIS):
            text += "; the diagnosis service does not answer: start it with `sluice up`"
        if run.status == "held":
            text += "; the rollout is held: send traffic, or `sluice approve`"
        self._view.waiting(text)

    async def _answers(self, service: Service) -> bool:
        try:
            reply = await self._opened.connection.request(
                subjects.health(service), b"", timeout=1.0
            )
            return bool(json.loads(reply.data))
        except (nats.errors.Error, TimeoutError, ValueError):
            return False
