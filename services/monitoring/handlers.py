"""Monitoring on the bus: an outcome or a piece of feedback may lead to alerts.

The service keeps its windows in memory. At start it rebuilds them from the outcomes it has already
acknowledged, and the open incidents from the alerts it has already published; both streams outlive
it. One process monitors: a second would see only a part of the outcomes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import Error as JetStreamError
from pydantic import ValidationError

from contracts import subjects
from contracts.alerts import Alert
from contracts.base import Frozen
from contracts.envelope import MSG_ID
from contracts.subjects import PREFIX
from contracts.telemetry import Feedback, Outcome
from contracts.topology import consumer
from services.monitoring.alerts import Monitor, Notice
from services.monitoring.rules import load_rules
from shared.errors import PermanentError, TransientError
from shared.messaging.broker import Bus
from shared.messaging.tail import Stored, history, sequence_of
from shared.metrics import Incidents

log = logging.getLogger("sluice.monitoring")

TELEMETRY, ALERTS, REMEDIES = "TELEMETRY", "ALERTS", "REMEDIES"
REPLAYED = 20_000
"""Acknowledged outcomes, of all deployments, that a start reads again."""


M = TypeVar("M", Msg, Stored)


class Malformed(PermanentError):
    """A message of TELEMETRY that is no outcome."""


class Monitoring:
    """The monitor on the bus: restores it, feeds it, publishes what it notices."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._consumer = consumer(bus.service, "outcomes")
        self.monitor = Monitor(load_rules())
        self._incidents = Incidents(lambda: self.monitor.firing)
        self._seen = 0
        """Sequence of the newest outcome the monitor has counted."""
        self._unsent: deque[Notice] = deque()

    @asynccontextmanager
    async def restored(self) -> AsyncIterator[None]:
        """Before the first outcome: windows and incidents as the last process left them.

        What that process was given and did not acknowledge is counted now: the server delivers it
        again only after newer outcomes.
        """
        js = self._bus.jetstream
        info = await js.consumer_info(TELEMETRY, self._consumer.durable)
        counted = int(info.ack_floor.stream_seq) if info.ack_floor else 0
        given = int(info.delivered.stream_seq) if info.delivered else 0
        past = await history(js, TELEMETRY, f"{PREFIX}.telemetry.>", since=counted - REPLAYED + 1)
        alerts = await history(js, ALERTS, f"{PREFIX}.alert.>")
        old = [m for m in past if sequence_of(m) <= counted]
        self.monitor.restore(_signals(old), _alerts(alerts))
        self._seen = counted
        await self.receive([m for m in past[len(old) :] if sequence_of(m) <= given])
        log.info("restored: %d outcomes, %d incidents open", len(past), len(self.monitor.firing))
        yield

    async def receive(self, batch: Sequence[M]) -> Sequence[tuple[M, Exception]]:
        """Count each outcome once and publish what they lead to; what is no outcome is refused."""
        refused: list[tuple[M, Exception]] = []
        for message in batch:
            try:
                signal = _signal(message)
            except ValidationError as error:
                mend = "publish Outcome or Feedback (`sluice schema`)"
                refused.append((message, Malformed(f"{message.subject}: {error}", mend=mend)))
                continue
            sequence = sequence_of(message)
            if sequence > self._seen:
                self._unsent.extend(self.monitor.observe(signal))
                self._seen = sequence
        while self._unsent:
            await self._publish(self._unsent[0])
            self._unsent.popleft()
        self._incidents.took(len(batch) - len(refused))
        return refused

    async def _publish(self, notice: Notice) -> None:
        alert = notice.alert
        if notice.withdraw is not None:  # first: the alert says that it was asked for
            ref, command = notice.withdraw.ref, notice.withdraw.command
            subject = subjects.command(ref.tenant, ref.run, "withdraw")
            await self._send("JOBS", subject, command, notice.message_id)
        remedy = notice.remedy
        subject = subjects.remedy(remedy.tenant, remedy.deployment, remedy.remedy)
        await self._send(REMEDIES, subject, remedy, notice.message_id)
        subject = subjects.alert(alert.tenant, alert.deployment, alert.metric)
        await self._send(ALERTS, subject, alert, notice.message_id)
        self._incidents.published(alert)
        log.warning("%s %s: %s %.3f", alert.metric, alert.state, alert.deployment, alert.value)

    async def _send(self, stream: str, subject: str, body: Frozen, message_id: str) -> None:
        try:
            await self._bus.jetstream.publish(
                subject,
                body.model_dump_json().encode(),
                stream=stream,
                timeout=5.0,
                headers={MSG_ID: message_id, "content-type": "application/json"},
            )
        except (nats.errors.Error, JetStreamError, TimeoutError) as error:
            raise TransientError(f"{stream} does not answer: {error!r}") from error


def _signal(message: Stored | Msg) -> Outcome | Feedback:
    """What a message of TELEMETRY says. Raises pydantic.ValidationError."""
    kind = Feedback if message.subject.endswith(".feedback") else Outcome
    return kind.model_validate_json(message.data)


def _signals(messages: Iterable[Stored]) -> Iterator[Outcome | Feedback]:
    for message in messages:
        try:
            yield _signal(message)
        except ValidationError:
            continue  # buried when it was first seen


def _alerts(messages: list[Stored]) -> Iterator[Alert]:
    for message in messages:
        try:
            yield Alert.model_validate_json(message.data)
        except ValidationError as error:
            log.warning("%s: not an alert: %s", message.subject, error)
