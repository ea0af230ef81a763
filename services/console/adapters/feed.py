"""The feed: follows RUN, PROGRESS and ALERTS from their beginning and folds them for the console.

An ordered read without durable state: after a broker restart it goes on where it was, and a new
console builds the same projection again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from nats.js import JetStreamContext
from pydantic import ValidationError

from contracts.alerts import Alert
from contracts.base import SLUG
from contracts.envelope import Recorded, UnknownEvent, recorded
from contracts.progress import Progress
from contracts.run import Run
from contracts.subjects import PREFIX, RunRef
from services.console.projection import Projection
from shared.errors import TransientError
from shared.messaging.runlog import RunLog
from shared.messaging.tail import Stored, tail

log = logging.getLogger("sluice.console")

IDLE_S = 0.5
_FIRST_FACTS = {"accepted", "rejected"}
_UNREADABLE = (UnknownEvent, ValidationError, ValueError, KeyError)


class Feed:
    """Keeps a projection up to date."""

    def __init__(self, projection: Projection, jetstream: Callable[[], JetStreamContext]) -> None:
        self._projection = projection
        self._jetstream = jetstream
        self._runlog: RunLog | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Following, until the block ends."""
        tasks = [
            asyncio.create_task(self._follow(stream, kind, take))
            for stream, kind, take in (
                ("RUN", "run", self._fact),
                ("PROGRESS", "progress", self._progress),
                ("ALERTS", "alert", self._alert),
            )
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def load(self, ref: RunRef) -> Run | None:
        """A run the projection has forgotten, from its log. Raises TransientError."""
        if not (re.fullmatch(SLUG, ref.tenant) and re.fullmatch(SLUG, ref.run)):
            return None  # a wildcard would read other runs
        self._runlog = self._runlog or RunLog(self._jetstream())
        try:
            run = await self._runlog.load(ref)
        except _UNREADABLE as error:
            log.warning("%s cannot be read: %s", ref, error)
            return None
        return run if run.log else None

    async def _follow(self, stream: str, kind: str, take: Callable[[Stored], object]) -> None:
        async for batch in tail(
            self._jetstream(), stream, f"{PREFIX}.{kind}.>", since=1, idle_s=IDLE_S
        ):
            for message in batch:
                try:
                    result = take(message)
                    if asyncio.iscoroutine(result):
                        await result
                except _UNREADABLE as error:
                    log.warning("%s: passed over: %s", message.subject, error)
                except TransientError as error:
                    log.warning("%s: %s", message.subject, error)

    async def _fact(self, message: Stored) -> None:
        record: Recorded = recorded(message.subject, message.headers, message.data, message.seq)
        known = self._projection.run(record.ref) is not None
        if not known and record.event.fact not in _FIRST_FACTS:
            run = await self.load(record.ref)
            if run is not None:
                self._projection.put(run)
                return
        self._projection.apply(record)

    def _progress(self, message: Stored) -> None:
        self._projection.report(
            RunRef.of(message.subject),
            Progress.model_validate_json(message.data),
            message.at,
        )

    def _alert(self, message: Stored) -> None:
        self._projection.alert(Alert.model_validate_json(message.data))
