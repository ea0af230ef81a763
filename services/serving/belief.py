"""Facts on their way into routing: believed, refused, or asked about again.

A fact that cannot be checked now, since artifacts or keys are out of reach, is neither. It waits
with the facts of its run that follow it, in order, and is checked again until there is an answer;
other runs go on. Facts that take traffic away are acted upon at once: they need no proof.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable

from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, CandidateRegistered, VerdictAttested
from contracts.rollout import RolloutCompleted, StageStarted
from contracts.subjects import RunRef
from services.serving.directory import Directory
from services.serving.trust import Trust
from shared.errors import SignatureInvalid, TransientError

log = logging.getLogger("sluice.serving")

ANSWER_WITHIN_S = 2.0
"""A store that takes longer is away; routing does not wait for it."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
READS_ARTIFACTS = (CandidateRegistered, VerdictAttested, AdapterPromoted)
NEEDS_PROOF = (*READS_ARTIFACTS, StageStarted, RolloutCompleted)


class Belief:
    """What of the run log `directory` acts upon."""

    def __init__(
        self,
        directory: Directory,
        trust: Trust,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory, self._trust, self._clock = directory, trust, clock
        self._waiting: dict[RunRef, deque[Recorded]] = {}
        self._late: tuple[str, asyncio.Task[None]] | None = None
        """A check that has no answer yet, and the id of its fact."""
        self._pause_s = FIRST_PAUSE_S
        self._next = 0.0

    @property
    def waiting(self) -> int:
        """Runs of which a fact could not be checked yet."""
        return len(self._waiting)

    async def take(self, record: Recorded) -> None:
        """Act upon the next fact of the log, or keep it for `again`."""
        if record.ref not in self._waiting and await self._settled(record):
            return
        self._waiting.setdefault(record.ref, deque()).append(record)
        if isinstance(record.event, CandidateRegistered):
            self._directory.refuse(record)  # its deployment answers from the base meanwhile
        elif not isinstance(record.event, NEEDS_PROOF):
            self._directory.apply(record)

    def reconsider(self, ref: RunRef, records: Iterable[Recorded]) -> None:
        """Check a run's whole log again: what was believed of it may not be any more."""
        if facts := deque(records):
            self._waiting[ref] = facts
            self._next = 0.0

    async def again(self) -> None:
        """Check what waits, if it is time to. A run whose facts are all settled waits no more."""
        if not self._waiting or self._clock() < self._next:
            return
        self._forget_the_late()
        late = self._late and self._late[0]  # first, for the others wait for it
        for ref in sorted(self._waiting, key=lambda ref: self._waiting[ref][0].id != late):
            facts = self._waiting[ref]
            while facts and await self._settled(facts[0]):
                facts.popleft()
            if not facts:
                del self._waiting[ref]
                log.info("%s: its facts could be checked; it is routed again", ref)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S) if self._waiting else FIRST_PAUSE_S
        self._next = self._clock() + self._pause_s

    def _forget_the_late(self) -> None:
        """An answer that nobody will ask for any more: its run is checked from its beginning."""
        heads = {facts[0].id for facts in self._waiting.values()}
        if self._late and self._late[1].done() and self._late[0] not in heads:
            self._late = None

    async def _settled(self, record: Recorded) -> bool:
        """Whether the fact has been believed or refused."""
        try:
            await self._check(record)
        except SignatureInvalid as error:
            log.error("%s: %s is not believed: %s", record.ref, record.event.type_name(), error)
            self._directory.refuse(record)
            return True
        except Exception as error:  # of whichever file system the store is on
            log.error(
                "%s: %s cannot be checked now: %r", record.ref, record.event.type_name(), error
            )
            return False
        self._directory.apply(record)
        return True

    async def _check(self, record: Recorded) -> None:
        """Raise what `Trust.require` raises, TransientError if that takes too long."""
        if not isinstance(record.event, READS_ARTIFACTS):
            self._trust.require(record)
            return
        if self._late is None:
            check = asyncio.create_task(asyncio.to_thread(self._trust.require, record))
            self._late = record.id, check
        whose, check = self._late
        if whose == record.id:
            await asyncio.wait({check}, timeout=ANSWER_WITHIN_S)
            if check.done():
                self._late = None
                check.result()
                return
        raise TransientError("the artifact store has not answered", mend="wait; it is asked again")
