"""Steps: how a service turns a fact into the next fact, exactly once in effect.

A step is load, decide, append. `Steps.on` wraps a handler with everything that is the same for all:
read the run; if the run has ended or the step's fact is there already, acknowledge; take the lease;
keep lease and message alive while the handler works; notice cancellation; append what the handler
returns, with an id derived from the trigger; acknowledge. Kill the process anywhere in between and
the redelivered trigger finds either the fact or the free lease.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import nats.errors
from faststream.nats import NatsMessage
from nats.aio.msg import Msg
from nats.js.errors import APIError
from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from contracts import subjects
from contracts.base import Event
from contracts.diagnosis import RunAccepted
from contracts.envelope import Recorded, UnknownEvent, recorded
from contracts.fault import StepFailed
from contracts.progress import Progress
from contracts.run import Run
from contracts.subjects import RunRef
from contracts.topology import LEASES, Consumer, consumer
from shared.artifacts import ArtifactStore
from shared.diskspace import is_disk_full
from shared.errors import DiskFull, Misconfigured, OutOfMemory, PermanentError, TransientError
from shared.messaging.broker import Bus
from shared.messaging.cancellation import heed_cancellation
from shared.messaging.delivery import ServiceStops, will_retry
from shared.messaging.leases import RENEW_EVERY_S, Lease, LeaseLost, Leases
from shared.messaging.runlog import RunClosed, RunLog
from shared.telemetry import span

log = logging.getLogger("sluice.steps")

LONGEST_SILENCE_S = 3.0
MINIMUM_TICK_S = 0.5


class Malformed(PermanentError):
    """A message that is not what its subject promises."""


@dataclass(slots=True, kw_only=True)
class Step:
    """What a handler works with: the run as loaded, its trigger, and ways to report."""

    run: Run
    trigger: Recorded
    runlog: RunLog
    progress_to: Callable[[str, Progress], Awaitable[None]]
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the run was cancelled or this worker lost its lease: stop at the next safe point."""
    _last: tuple[str, Progress] | None = None
    _last_at: float = 0.0
    _news: set[asyncio.Task[None]] = field(default_factory=set)

    async def progress(
        self, stage: str, message: str, done: float = 0, total: float | None = None, **values: float
    ) -> None:
        """Best effort news: never fails the step. Repeated every few seconds until the next."""
        news = Progress(stage=stage, message=message, done=done, total=total, values=values)
        await self.report(stage, news)

    async def report(self, stage: str, news: Progress) -> None:
        """`progress`, for who has the value at hand."""
        self._last = (stage, news)
        self._last_at = time.monotonic()
        await self.progress_to(stage, news)

    def tick(self, stage: str, message: str, done: float, total: float | None = None) -> None:
        """`progress` from code that is not a coroutine, at most twice a second."""
        if done != total and time.monotonic() - self._last_at < MINIMUM_TICK_S:
            return
        self._last_at = time.monotonic()
        task = asyncio.get_running_loop().create_task(self.progress(stage, message, done, total))
        self._news.add(task)
        task.add_done_callback(self._news.discard)

    async def break_silence(self) -> None:
        """Repeat the last news if nothing was heard for a while."""
        if self._last is not None and time.monotonic() - self._last_at > LONGEST_SILENCE_S:
            await self.report(*self._last)

    async def stumble(self, purpose: str, error: Exception) -> None:
        """Say why the step is tried again, and what would help."""
        stage, last = self._last or (purpose, Progress(stage=purpose, message=""))
        mend = getattr(error, "mend", "")
        message = f"{error}; {mend or 'trying again'}"[:500]
        await self.report(stage, last.model_copy(update={"message": message}))

    async def state(self, event: Event, *, key: str | None = None) -> Run:
        """Append a fact in the middle of the step."""
        self.run = await self.runlog.append(self.run.ref, event, cause=self.trigger.id, key=key)
        return self.run


Handler = Callable[[Step], Awaitable[Event | None]]
CommandHandler = Callable[[RunRef, Msg], Awaitable[None]]
MessageHandler = Callable[[Msg], Awaitable[None]]
Done = Callable[[Run, Recorded], bool]


class Steps:
    """The steps of one service."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.artifacts = ArtifactStore(bus.settings.artifacts_url)
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._runlog: RunLog | None = None
        self._leases: Leases | None = None

    @property
    def runlog(self) -> RunLog:
        if self._runlog is None:
            self._runlog = RunLog(self.bus.jetstream)
        return self._runlog

    async def leases(self) -> Leases:
        if self._leases is None:
            try:
                bucket = await self.bus.jetstream.key_value(LEASES)
            except (nats.errors.Error, APIError, TimeoutError) as error:
                raise TransientError(f"leases do not answer: {error!r}") from error
            self._leases = Leases(bucket, self._holder)
        return self._leases

    def on(
        self,
        purpose: str,
        *,
        done: Done | None = None,
        after_the_end: bool = False,
        workers: int = 1,
    ) -> Callable[[Handler], Handler]:
        """Register a handler for the consumer `<service>-<purpose>` of the topology.

        `done(run, trigger)` says that the run already holds what this step would state; by default,
        that some event names the trigger as its cause and this service as its producer.
        `after_the_end` is for steps that follow the fact that ended the run; they state nothing.
        """
        row = consumer(self.bus.service, purpose)
        is_done = done or self._answered

        def over(run: Run, trigger: Recorded) -> bool:
            if _superseded(run, trigger) or is_done(run, trigger):
                return True
            return run.closed and not after_the_end

        def register(handler: Handler) -> Handler:
            _check_wiring(handler, takes=1, name=row.durable)

            async def receive(message: NatsMessage) -> None:
                trigger = fact_of(message.raw_message)
                await self._run_step(row, handler, over, trigger, message.raw_message)

            self.bus.subscriber(row, workers=workers)(receive)
            return handler

        return register

    def command(self, purpose: str) -> Callable[[CommandHandler], CommandHandler]:
        """Register a handler for a user's command. It must be safe to run twice."""
        row = consumer(self.bus.service, purpose)

        def register(handler: CommandHandler) -> CommandHandler:
            _check_wiring(handler, takes=2, name=row.durable)

            async def receive(message: NatsMessage) -> None:
                raw: Msg = message.raw_message
                with span(
                    f"{row.durable}",
                    traceparent=(raw.headers or {}).get("traceparent"),
                    kind=SpanKind.CONSUMER,
                    attributes={"messaging.destination.name": raw.subject},
                ):
                    async with self.bus.suspects.watching(raw):
                        await handler(ref_of(raw), raw)

            self.bus.subscriber(row)(receive)
            return handler

        return register

    def messages(self, purpose: str) -> Callable[[MessageHandler], MessageHandler]:
        """Register a handler for messages that speak of no run. It must be safe to run twice."""
        row = consumer(self.bus.service, purpose)

        def register(handler: MessageHandler) -> MessageHandler:
            _check_wiring(handler, takes=1, name=row.durable)

            async def receive(message: NatsMessage) -> None:
                async with self.bus.suspects.watching(message.raw_message):
                    await handler(message.raw_message)

            self.bus.subscriber(row)(receive)
            return handler

        return register

    def _answered(self, run: Run, trigger: Recorded) -> bool:
        mine = self.bus.service
        return any(r.cause == trigger.id and r.event.producer() == mine for r in run.log)

    async def _run_step(
        self, row: Consumer, handler: Handler, over: Done, trigger: Recorded, raw: Msg
    ) -> None:
        run = await self.runlog.load(trigger.ref)
        if over(run, trigger):
            return
        leases = await self.leases()
        lease = await leases.acquire(f"{trigger.ref.tenant}.{trigger.ref.run}.{row.durable}")
        step = Step(
            run=run,
            trigger=trigger,
            runlog=self.runlog,
            progress_to=lambda stage, news: self._report(trigger.ref, stage, news),
        )
        try:
            # The lease's last holder may have finished between our read and our acquire.
            step.run = await self.runlog.load(trigger.ref)
            if over(step.run, trigger):
                return
            with span(
                row.durable,
                traceparent=trigger.traceparent,
                kind=SpanKind.CONSUMER,
                attributes={
                    "sluice.tenant": trigger.ref.tenant,
                    "sluice.run": trigger.ref.run,
                    "messaging.destination.name": raw.subject,
                },
            ):
                await self._work(row, handler, step, lease, raw)
        finally:
            await leases.release(lease)

    async def _work(
        self, row: Consumer, handler: Handler, step: Step, lease: Lease, raw: Msg
    ) -> None:
        async def handled() -> Event | None:
            async with self.bus.suspects.watching(raw):
                return await handler(step)

        work = asyncio.ensure_future(handled())
        pulse = asyncio.ensure_future(self._keep_alive(step, lease, raw))
        try:
            await asyncio.wait({work, pulse}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():  # the pulse ends early only because the lease is lost
                step.cancelled.set()
                work.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await work
                await pulse
                raise LeaseLost(f"{lease.key} was lost")
            event = work.result()
            if event is not None:
                await step.state(event)
        except RunClosed as closed:
            log.info("%s", closed)
        except Exception as failure:
            deliveries = raw.metadata.num_delivered or 1
            error = _told(failure, deliveries)
            if not will_retry(error, deliveries):
                await self._state_failure(row, step, error)
            elif not isinstance(error, ServiceStops):
                await step.stumble(row.purpose, error)
            if error is failure:
                raise
            raise error from failure
        finally:
            pulse.cancel()
            if not work.done():
                work.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await work

    async def _keep_alive(self, step: Step, lease: Lease, raw: Msg) -> None:
        """Renew lease and message together; watch for cancellation. Raises LeaseLost."""
        leases = await self.leases()
        missed = 0
        while True:
            await asyncio.sleep(RENEW_EVERY_S / 4)
            heed_cancellation()
            await step.break_silence()
            try:
                if (missed := missed + 1) % 4 == 0:
                    await leases.renew(lease)
                    await raw.in_progress()
                run = await self.runlog.load(step.run.ref)
            except LeaseLost:
                raise
            except (TransientError, nats.errors.Error) as error:
                log.warning("%s: %s", lease.key, error)
                continue
            if run.closed or run.attempt != step.run.attempt:
                step.cancelled.set()

    async def _state_failure(self, row: Consumer, step: Step, error: Exception) -> None:
        """Let the run show where it stopped."""
        with suppress(RunClosed):
            await step.state(
                StepFailed(
                    where=self.bus.service,
                    step=row.durable,
                    error=type(error).__name__,
                    message=str(error)[:2000],
                    mend=getattr(error, "mend", "")
                    or "see `sluice dead list`; then `sluice retry`",
                )
            )

    async def _report(self, ref: RunRef, stage: str, news: Progress) -> None:
        with suppress(nats.errors.Error):
            await self.bus.connection.publish(
                subjects.progress(ref.tenant, ref.run, stage), news.model_dump_json().encode()
            )


def _told(failure: Exception, deliveries: int) -> Exception:
    """`failure`, in words that say what would help where Python's own do not."""
    if is_disk_full(failure):
        return DiskFull(str(failure))
    if isinstance(failure, MemoryError) and not will_retry(failure, deliveries):
        return OutOfMemory(str(failure))
    return failure


def _superseded(run: Run, trigger: Recorded) -> bool:
    """Whether the run has begun another attempt since the trigger."""
    return any(isinstance(r.event, RunAccepted) and r.seq > trigger.seq for r in run.log)


def _check_wiring(handler: Callable[..., object], *, takes: int, name: str) -> None:
    """Everything else a handler needs is closed over, so a missing part shows before the start."""
    parameters = inspect.signature(handler).parameters
    if not inspect.iscoroutinefunction(handler) or len(parameters) != takes:
        raise Misconfigured(
            f"the handler of {name} must be async and take {takes}, not ({', '.join(parameters)})",
            mend="pass collaborators to register() and close over them",
        )


def fact_of(raw: Msg) -> Recorded:
    """The fact in a message of the RUN stream. Raises Malformed."""
    try:
        return recorded(raw.subject, raw.headers or {}, raw.data, raw.metadata.sequence.stream)
    except (UnknownEvent, ValidationError, ValueError, KeyError) as error:
        raise Malformed(
            f"{raw.subject}: {error}", mend="publish events as docs/events.md describes"
        ) from error


def ref_of(raw: Msg) -> RunRef:
    """The run a command speaks of. Raises Malformed."""
    try:
        return RunRef.of(raw.subject)
    except ValueError as error:
        raise Malformed(str(error), mend="use sluice.v1.job.<tenant>.<run>.<verb>") from error
