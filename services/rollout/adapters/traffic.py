"""What rollout reads from the bus: live outcomes of a deployment, and who else rolls out on it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Iterator

from nats.js import JetStreamContext
from pydantic import ValidationError

from contracts import subjects
from contracts.run import Run
from contracts.subjects import PREFIX, RunRef
from contracts.telemetry import Feedback, Outcome
from shared.errors import TransientError
from shared.messaging.runlog import STREAM, RunLog
from shared.messaging.tail import Stored, history, last_sequence, tail

log = logging.getLogger("sluice.rollout")

TELEMETRY = "TELEMETRY"


class Traffic:
    """The TELEMETRY and RUN streams as rollout sees them."""

    def __init__(self, jetstream: JetStreamContext, runlog: RunLog) -> None:
        self._js = jetstream
        self._runlog = runlog

    async def next_sequence(self) -> int:
        """The sequence the next outcome will have. Raises TransientError."""
        return await last_sequence(self._js, TELEMETRY) + 1

    async def outcomes(
        self, tenant: str, deployment: str, *, since: int
    ) -> AsyncGenerator[list[tuple[int, Outcome | Feedback]], None]:
        """Outcomes and feedback with their sequences from `since` on, then live; empty if quiet."""
        subject = subjects.telemetry(tenant, deployment)
        opinions = _Opinions(self._js, subjects.feedback(tenant, deployment), since)
        seen = since - 1  # every outcome up to this sequence has been yielded
        async for batch in tail(self._js, TELEMETRY, subject, since=since):
            seen = max(seen, batch[-1].seq) if batch else seen
            found = [*_signals(batch, Outcome), *_signals(await opinions.until(seen), Feedback)]
            yield sorted(found, key=lambda signal: signal[0])
            if not batch:  # the next empty batch says that there was no outcome up to here
                seen = max(seen, await self._last(seen))

    async def _last(self, otherwise: int) -> int:
        try:
            return await last_sequence(self._js, TELEMETRY)
        except TransientError:
            return otherwise

    async def runs_on(self, tenant: str) -> list[Run]:
        """Every run of the tenant that ever began a rollout, as of now. Raises TransientError."""
        began = f"{PREFIX}.run.{tenant}.*.rollout.stage_started"
        refs = {RunRef.of(m.subject) for m in await history(self._js, STREAM, began)}
        return [await self._runlog.load(ref) for ref in sorted(refs, key=str)]


class _Opinions:
    """A deployment's feedback, read up to where its outcomes are known: none comes before its own.

    A stream is read by one subject at a time, so the two are merged here, in stream order.
    """

    def __init__(self, jetstream: JetStreamContext, subject: str, since: int) -> None:
        self._js = jetstream
        self._subject = subject
        self._position = max(1, since)

    async def until(self, last: int) -> list[Stored]:
        """What is new up to sequence `last`; nothing while the broker is away."""
        if last < self._position:
            return []
        try:
            found = await history(self._js, TELEMETRY, self._subject, since=self._position)
        except TransientError as error:
            log.warning("%s: %s; later", self._subject, error)
            return []
        self._position = last + 1
        return [message for message in found if message.seq <= last]


def _signals(
    batch: Iterable[Stored], kind: type[Outcome] | type[Feedback]
) -> Iterator[tuple[int, Outcome | Feedback]]:
    for message in batch:
        try:
            yield message.seq, kind.model_validate_json(message.data)
        except ValidationError as error:
            log.warning("%s: not telemetry, skipped: %s", message.subject, error)
