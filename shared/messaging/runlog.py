"""The run log: the database of a run.

A run's state is the fold of its events. Every append is a compare-and-set over the whole run: the
publish carries the sequence of the newest event this writer has seen on `run.<tenant>.<run>.>`, and
the server refuses it (error 10071) if the log has grown since. The loser re-reads and decides
again. Transition and trigger are one message, so there is no outbox.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import APIError, NotFoundError
from pydantic import ValidationError

from contracts import subjects
from contracts.base import Event
from contracts.envelope import MSG_ID, UnknownEvent, event_id, headers_of, recorded
from contracts.run import Run
from contracts.subjects import RunRef
from shared.errors import PermanentError, TransientError
from shared.telemetry import current_traceparent

log = logging.getLogger("sluice.runlog")

STREAM = "RUN"
PUBLISH_TIMEOUT_S = 5.0
_WRONG_LAST_SEQUENCE = {10071, 10164}
_REMEMBERED_RUNS = 256


class RunClosed(PermanentError):
    """The run has ended; the fact no longer matters."""


def _with(run: Run, message: RawStreamMsg) -> Run:
    """The run after one more message. What is no fact counts for the version alone."""
    sequence = int(message.seq or 0)
    subject = str(message.subject)
    try:
        return run.apply(recorded(subject, message.headers or {}, message.data or b"", sequence))
    except (UnknownEvent, ValidationError, ValueError, KeyError) as error:
        log.warning("%s, sequence %d: not a fact, passed over: %s", subject, sequence, error)
        return replace(run, version=sequence)


class RunLog:
    """Reads and appends run logs. Remembers recent runs and reads only what is new."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._js = jetstream
        self._known: OrderedDict[RunRef, Run] = OrderedDict()

    async def load(self, ref: RunRef) -> Run:
        """The run as of now; version 0 if it has no events.

        Raises:
            TransientError: the broker does not answer.
        """
        run = self._known.get(ref) or Run(ref=ref)
        try:
            while True:
                message = await self._js.get_msg(
                    STREAM,
                    seq=run.version + 1,
                    subject=subjects.run_log(ref.tenant, ref.run),
                    direct=True,
                    next=True,
                )
                run = _with(run, message)
        except NotFoundError:
            pass
        except (nats.errors.Error, TimeoutError) as error:
            raise TransientError(f"the run log does not answer: {error!r}") from error
        self._remember(run)
        return run

    async def append(
        self, ref: RunRef, event: Event, *, cause: str, key: str | None = None, reopen: bool = False
    ) -> Run:
        """State a fact, once. Returns the run that holds it.

        A fact whose id the log already has is not written again. `key` names the fact where several
        causes may lead to it (see `contracts.envelope.event_id`).

        Raises:
            RunClosed: the run has ended and `reopen` is not set.
            TransientError: the broker does not answer; the caller's trigger is redelivered.
        """
        return await self.decide(ref, lambda _: event, cause=cause, key=key, reopen=reopen)

    async def decide(
        self,
        ref: RunRef,
        decision: Callable[[Run], Event | None],
        *,
        cause: str,
        key: str | None = None,
        reopen: bool = False,
    ) -> Run:
        """State what follows from the run as it is at the moment of writing; None states nothing.

        When another fact comes first, `decision` is asked again. Otherwise as `append`.
        """
        while True:
            run = await self.load(ref)
            event = decision(run)
            if event is None:
                return run
            identity = event_id(ref, event, key or cause)
            if identity in run.ids:
                return run
            if run.closed and not reopen:
                raise RunClosed(f"run {ref} is {run.status}; {event.type_name()} is dropped")
            if await self._publish(run, event, identity, cause):
                return await self.load(ref)
            await asyncio.sleep(random.uniform(0.0, 0.01))

    async def _publish(self, run: Run, event: Event, identity: str, cause: str) -> bool:
        """Whether the server took the event at exactly `run.version`."""
        ref = run.ref
        headers = headers_of(
            id=identity,
            ref=ref,
            event=event,
            cause=cause,
            at=datetime.now(UTC),
            traceparent=current_traceparent(),
        )
        headers |= {
            MSG_ID: identity,
            "Nats-Expected-Last-Subject-Sequence": str(run.version),
            "Nats-Expected-Last-Subject-Sequence-Subject": subjects.run_log(ref.tenant, ref.run),
        }
        try:
            await self._js.publish(
                subjects.fact(ref.tenant, ref.run, event),
                event.model_dump_json(by_alias=True).encode(),
                stream=STREAM,
                timeout=PUBLISH_TIMEOUT_S,
                headers=headers,
            )
        except APIError as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                return False
            raise TransientError(f"the broker refused the append: {error}") from error
        except (nats.errors.Error, TimeoutError) as error:
            raise TransientError(f"the broker does not answer: {error!r}") from error
        return True

    def _remember(self, run: Run) -> None:
        self._known[run.ref] = run
        self._known.move_to_end(run.ref)
        while len(self._known) > _REMEMBERED_RUNS:
            self._known.popitem(last=False)
