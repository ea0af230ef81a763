"""What rollout reads from the bus: live outcomes of a deployment, and who else rolls out on it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from nats.js import JetStreamContext
from pydantic import ValidationError

from contracts import subjects
from contracts.run import Run
from contracts.subjects import PREFIX, RunRef
from contracts.telemetry import Feedback, Outcome
from shared.messaging.runlog import STREAM, RunLog
from shared.messaging.tail import history, last_sequence, sequence_of, tail

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
        answers = subjects.telemetry(tenant, deployment)
        opinions = subjects.feedback(tenant, deployment)
        everything = f"{PREFIX}.telemetry.{tenant}.>"
        async for batch in tail(self._js, TELEMETRY, everything, since=since):
            found: list[tuple[int, Outcome | Feedback]] = []
            for message in batch:
                if message.subject not in (answers, opinions):
                    continue
                kind = Feedback if message.subject == opinions else Outcome
                try:
                    signal = kind.model_validate_json(message.data)
                except ValidationError as error:
                    log.warning("%s: not telemetry, skipped: %s", message.subject, error)
                    continue
                found.append((sequence_of(message), signal))
            yield found

    async def runs_on(self, tenant: str) -> list[Run]:
        """Every run of the tenant that ever began a rollout, as of now. Raises TransientError."""
        began = f"{PREFIX}.run.{tenant}.*.rollout.stage_started"
        refs = {RunRef.of(m.subject) for m in await history(self._js, STREAM, began)}
        return [await self._runlog.load(ref) for ref in sorted(refs, key=str)]
