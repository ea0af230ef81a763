"""Serving on the bus: routing is a projection of the run log, and every request leaves an outcome.

The projection replays all facts at start and follows them live, so every replica routes alike and a
restart forgets nothing. A fact is acted upon only with a signed chain behind it (`trust`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from pydantic import ValidationError

from contracts import subjects
from contracts.envelope import Recorded, UnknownEvent, recorded
from contracts.registry import AdapterPromoted, CandidateRegistered, VerdictAttested
from contracts.telemetry import Feedback, Outcome
from services.serving.directory import BASE, Directory
from services.serving.trust import Trust
from shared.errors import SluiceError, TransientError
from shared.messaging.cancellation import heed_cancellation
from shared.messaging.tail import last_sequence, sequence_of, tail
from shared.metrics import Answers

log = logging.getLogger("sluice.serving")

RUN = "RUN"
TELEMETRY = "TELEMETRY"
ALL_FACTS = f"{subjects.PREFIX}.run.>"
OUTCOMES_IN_FLIGHT = 10_000
PUBLISHED_AT_ONCE = 32
"""The broker syncs each outcome to disk: one at a time would wait for it each time."""
SAY_EVERY = 1000
"""Dropped outcomes for a line of the log."""
CAUGHT_UP_WITHIN_S = 5.0
READS_ARTIFACTS = (CandidateRegistered, VerdictAttested, AdapterPromoted)
UNOBSERVED = {BASE, "evaluation", "direct"}


class Projection:
    """Keeps a `Directory` in step with the run log."""

    def __init__(
        self,
        directory: Directory,
        jetstream: Callable[[], JetStreamContext],
        trust: Trust,
    ) -> None:
        self._directory = directory
        self._jetstream = jetstream
        self._trust = trust
        self.caught_up = asyncio.Event()
        self._applied = 0
        self._moved = asyncio.Condition()

    async def catch_up(self) -> None:
        """Return once everything that is in the log now has been applied: read your writes.

        Raises:
            TransientError: the broker does not answer, or the projection is still behind.
        """
        goal = await last_sequence(self._jetstream(), RUN)
        try:
            async with asyncio.timeout(CAUGHT_UP_WITHIN_S), self._moved:
                await self._moved.wait_for(lambda: self._applied >= goal)
        except TimeoutError as error:
            raise TransientError(
                f"routing is at {self._applied} of {goal} facts", mend="ask again in a moment"
            ) from error

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow until the block ends. Enters when the log has been replayed."""
        task = asyncio.create_task(self._follow())
        try:
            waiting = asyncio.create_task(self.caught_up.wait())
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _follow(self) -> None:
        goal = await last_sequence(self._jetstream(), RUN)
        if not goal:
            self.caught_up.set()
        async with aclosing(tail(self._jetstream(), RUN, ALL_FACTS, since=1)) as batches:
            async for batch in batches:
                for message in batch:
                    sequence = sequence_of(message)
                    try:
                        record = recorded(
                            message.subject, message.headers or {}, message.data, sequence
                        )
                    except (UnknownEvent, ValidationError, ValueError, KeyError) as error:
                        log.warning("%s: not a fact, skipped: %s", message.subject, error)
                    else:
                        await self._apply(record)
                    if sequence >= goal:
                        self.caught_up.set()
                    await self._passed(sequence)
                if not batch:
                    self.caught_up.set()
                await self._heed_keys()

    async def _passed(self, sequence: int) -> None:
        async with self._moved:
            self._applied = max(self._applied, sequence)
            self._moved.notify_all()

    async def _apply(self, record: Recorded) -> None:
        try:
            if isinstance(record.event, READS_ARTIFACTS):
                await asyncio.to_thread(self._trust.require, record)
            else:
                self._trust.require(record)
        except (SluiceError, OSError) as error:
            log.error("%s: %s is not believed: %s", record.ref, record.event.type_name(), error)
            self._directory.refuse(record)
        else:
            self._directory.apply(record)

    async def _heed_keys(self) -> None:
        """A key that is trusted no more takes the adapters it signed for out of service."""
        try:
            lost = await asyncio.to_thread(self._trust.lost)
        except (SluiceError, OSError) as error:
            log.error("the registry's keys cannot be read: %s", error)
            return
        for tenant, adapter_id in lost:
            log.error("%s/%s is served no more: its key is not trusted", tenant, adapter_id)
            self._directory.distrust(tenant, adapter_id)


class TelemetrySink:
    """Publishes outcomes without making a request wait; bounded, and says what it drops."""

    def __init__(self, jetstream: Callable[[], JetStreamContext]) -> None:
        self._jetstream = jetstream
        self._queue: asyncio.Queue[Outcome | Feedback] = asyncio.Queue(OUTCOMES_IN_FLIGHT)
        self._answers = Answers()
        self.dropped = 0

    async def emit(self, signal: Outcome | Feedback) -> None:
        """Only deployments are observed: the base or an adapter asked by name has no rollout."""
        if signal.deployment in UNOBSERVED:
            return
        self._answers.record(signal)
        try:
            self._queue.put_nowait(signal)
        except asyncio.QueueFull:
            self.dropped += 1
            if self.dropped % SAY_EVERY == 1:
                log.error("telemetry is behind: %d outcomes dropped", self.dropped)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish until the block ends; what is queued then is still sent."""
        tasks = [asyncio.create_task(self._publish()) for _ in range(PUBLISHED_AT_ONCE)]
        try:
            yield
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._queue.join(), 5.0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1.0)  # Python 3.11 may swallow a cancellation

    async def _publish(self) -> None:
        while True:
            heed_cancellation()
            signal = await self._queue.get()
            await self._deliver(signal)
            self._queue.task_done()

    async def _deliver(self, signal: Outcome | Feedback) -> None:
        """Until the broker has it: an outcome is evidence, a lost one biases a verdict."""
        if isinstance(signal, Feedback):
            subject = subjects.feedback(signal.tenant, signal.deployment)
            message_id = f"{signal.tenant}:{signal.request_id}:{signal.kind}"
        else:
            subject = subjects.telemetry(signal.tenant, signal.deployment)
            message_id = f"{signal.request_id}:{signal.arm}"
        while True:
            heed_cancellation()
            try:
                await self._jetstream().publish(
                    subject,
                    signal.model_dump_json().encode(),
                    stream=TELEMETRY,
                    timeout=5.0,
                    headers={"Nats-Msg-Id": message_id},
                )
                return
            except (nats.errors.Error, JetStreamError, TimeoutError) as error:
                log.warning("telemetry waits for the broker: %r", error)
                await asyncio.sleep(0.5)
