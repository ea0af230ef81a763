"""Serving on the bus: routing is a projection of the run log, and every request leaves an outcome.

The projection replays all facts at start and follows them live, so every replica routes alike and a
restart forgets nothing. A fact is acted upon only with a signed chain behind it (`trust`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from pydantic import ValidationError

from contracts import subjects
from contracts.envelope import Recorded, UnknownEvent, recorded
from contracts.subjects import RunRef
from contracts.telemetry import Feedback, Outcome
from services.serving.belief import Belief
from services.serving.directory import BASE, Directory
from services.serving.trust import Trust
from shared.errors import PeerUnavailable, SluiceError, TransientError
from shared.messaging.cancellation import heed_cancellation
from shared.messaging.tail import Stored, history, last_sequence, sequence_of, tail
from shared.metrics import Answers

log = logging.getLogger("sluice.serving")

RUN = "RUN"
TELEMETRY = "TELEMETRY"
ALL_FACTS = f"{subjects.PREFIX}.run.>"
OUTCOMES_IN_FLIGHT = 10_000
PUBLISHED_AT_ONCE = 32
"""The broker syncs each outcome to disk: one at a time would wait for it each time."""
KEPT_WITHIN_S = 5.0
SAY_EVERY = 1000
"""Dropped outcomes for a line of the log."""
CAUGHT_UP_WITHIN_S = 5.0
_BROKER_AWAY = (nats.errors.Error, JetStreamError, TimeoutError)
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
        self._belief = Belief(directory, trust)
        self.caught_up = asyncio.Event()
        self._applied = 0
        self._lost: list[RunRef] = []
        self._moved = asyncio.Condition()

    @property
    def waiting(self) -> int:
        """Runs that are routed as they were, since a fact of theirs cannot be checked now."""
        return self._belief.waiting

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
                    for record in _facts([message]):
                        await self._belief.take(record)
                    if sequence >= goal:
                        self.caught_up.set()
                    await self._passed(sequence)
                if not batch:
                    self.caught_up.set()
                await self._heed_keys()
                await self._belief.again()

    async def _passed(self, sequence: int) -> None:
        async with self._moved:
            self._applied = max(self._applied, sequence)
            self._moved.notify_all()

    async def _heed_keys(self) -> None:
        """A key that is trusted no more takes the adapters it signed for out of service."""
        try:
            lost = await asyncio.to_thread(self._trust.lost)
        except (SluiceError, OSError) as error:
            log.error("the registry's keys cannot be read: %s", error)
            return
        for tenant, adapter_id in lost:
            log.error("%s/%s is served no more: its key is not trusted", tenant, adapter_id)
            known = self._directory.adapters(tenant).get(adapter_id)
            self._directory.distrust(tenant, adapter_id)
            if known is not None and known.run is not None:
                self._lost.append(RunRef(tenant, known.run))
        await self._look_again()

    async def _look_again(self) -> None:
        """An outage looks like a lost key: the runs of what was lost are checked anew."""
        try:
            while self._lost:
                ref = self._lost[-1]
                subject = f"{subjects.PREFIX}.run.{ref.tenant}.{ref.run}.>"
                self._belief.reconsider(ref, _facts(await history(self._jetstream(), RUN, subject)))
                self._lost.pop()
        except TransientError as error:
            log.warning("what keys were lost for is read later: %s", error)


def _facts(messages: Iterable[Stored]) -> Iterator[Recorded]:
    for message in messages:
        try:
            yield recorded(
                message.subject, message.headers or {}, message.data, sequence_of(message)
            )
        except (UnknownEvent, ValidationError, ValueError, KeyError) as error:
            log.warning("%s: not a fact, skipped: %s", message.subject, error)


class TelemetrySink:
    """Publishes outcomes without making a request wait; bounded, and says what it drops.

    Feedback is published before it is acknowledged.
    """

    def __init__(self, jetstream: Callable[[], JetStreamContext]) -> None:
        self._jetstream = jetstream
        self._queue: asyncio.Queue[Outcome] = asyncio.Queue(OUTCOMES_IN_FLIGHT)
        self._answers = Answers()
        self.dropped = 0

    async def emit(self, signal: Outcome | Feedback) -> None:
        """Take an outcome for later; return from feedback when the broker has it.

        Only deployments are observed: the base or an adapter asked by name has no rollout.

        Raises:
            PeerUnavailable: the broker did not say that it has the feedback.
        """
        if signal.deployment in UNOBSERVED:
            return
        if isinstance(signal, Feedback):
            await self._kept(signal)
            self._answers.record(signal)
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

    async def _kept(self, feedback: Feedback) -> None:
        """A person who is thanked has been heard: their report may end a rollout."""
        try:
            await self._send(
                subjects.feedback(feedback.tenant, feedback.deployment),
                feedback,
                f"{feedback.tenant}:{feedback.request_id}:{feedback.kind}",
            )
        except _BROKER_AWAY as error:
            raise PeerUnavailable(
                f"the broker does not take feedback now: {error!r}",
                mend="send it again; the same feedback counts once",
            ) from error

    async def _deliver(self, outcome: Outcome) -> None:
        """Until the broker has it: an outcome is evidence, a lost one biases a verdict."""
        subject = subjects.telemetry(outcome.tenant, outcome.deployment)
        while True:
            heed_cancellation()
            try:
                await self._send(subject, outcome, f"{outcome.request_id}:{outcome.arm}")
                return
            except _BROKER_AWAY as error:
                log.warning("telemetry waits for the broker: %r", error)
                await asyncio.sleep(0.5)

    async def _send(self, subject: str, signal: Outcome | Feedback, message_id: str) -> None:
        await self._jetstream().publish(
            subject,
            signal.model_dump_json().encode(),
            stream=TELEMETRY,
            timeout=KEPT_WITHIN_S,
            headers={"Nats-Msg-Id": message_id},
        )
