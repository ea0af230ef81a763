"""The task envelope: how far a request lies from what its adapter was measured on (M15, ERRATA 13).

A request's distance is 1 − cosine to the nearest row of the job's dev set, in units of what the dev
set's rows have among themselves on average: 1 is a request like those, 1.5 the edge that monitoring
alerts at. Only a sample of the users' requests is measured, two a second, after their answers: an
embedding takes the processor that answers them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.base import Digest
from contracts.telemetry import Feedback, Outcome
from services.serving.execution import OutcomeSink
from shared.errors import SluiceError
from shared.messaging.cancellation import heed_cancellation
from shared.similarity.meaning import Embedder

log = logging.getLogger("sluice.serving")

SAMPLED_PER_S = 2.0
ROWS = 256
"""Of a dev set; more cost memory and say little more."""
SMALLEST_SPREAD = 0.05
"""Rows that say nearly the same would make any other request look infinitely far away."""
KEPT = 64
"""Envelopes of so many dev sets."""
WAITING = 64


@dataclass(frozen=True, slots=True)
class Envelope:
    """A dev set's rows and their own mean distance to the nearest other."""

    rows: np.ndarray
    """Of length one, float32, [rows, width]."""
    spread: float

    @classmethod
    def of(cls, texts: Sequence[str], embedder: Embedder) -> Envelope:
        """Raises ValueError for fewer than two texts: they have no distance of their own."""
        if len(texts) < 2:
            raise ValueError("a dev set of fewer than two rows has no distance of its own")
        rows = embedder.embed(texts)
        closeness = rows @ rows.T
        np.fill_diagonal(closeness, -1.0)
        return cls(rows, max(float(np.mean(1 - closeness.max(axis=1))), SMALLEST_SPREAD))

    def distance(self, vector: np.ndarray) -> float:
        """Of one unit vector, in units of the dev set's own."""
        return max(0.0, float(1 - (self.rows @ vector).max())) / self.spread


def texts_of(rows: bytes) -> list[str]:
    """The newest user turn of each row of a JSON Lines file, the first `ROWS` of them.

    Raises ValueError, KeyError or TypeError for what is no such file.
    """
    lines = [line for line in rows.splitlines() if line.strip()][:ROWS]
    return [asked_of(json.loads(line)["messages"]) for line in lines]


def asked_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The newest user turn, the empty string without one."""
    turns = [text_of(m.get("content")) for m in messages if m.get("role") == "user"]
    return turns[-1] if turns else ""


def text_of(content: object) -> str:
    """A turn's text, which may be a list of parts."""
    if isinstance(content, list):
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, Mapping))
    return content if isinstance(content, str) else ""


_Heard = tuple[str, Sequence[int]]
"""What a user asks, and the tokens of the whole prompt."""


class Gauge:
    """An outcome sink before another: a sample of the outcomes leaves it with its distance."""

    def __init__(
        self,
        embedder: Embedder,
        dev_set: Callable[[str, str], Digest | None],
        read: Callable[[Digest], bytes],
        sink: OutcomeSink,
        *,
        clock: Callable[[], float] = time.monotonic,
        score: Callable[[Sequence[int]], Awaitable[float | None]] | None = None,
    ) -> None:
        """`dev_set` names the dev set of a tenant's deployment; `read` brings an artifact.

        `score` gives a prompt's log-probability, of those it takes for its sample.
        """
        self._embedder = embedder
        self._dev_set, self._read, self._sink = dev_set, read, sink
        self._clock, self._score = clock, score
        self._next = 0.0
        self._heard: OrderedDict[tuple[str, str], _Heard] = OrderedDict()
        self._envelopes: OrderedDict[Digest, Envelope | None] = OrderedDict()
        self._queue: asyncio.Queue[tuple[Outcome, _Heard]] = asyncio.Queue(WAITING)

    def hear(self, tenant: str, request_id: str, text: str, prompt: Sequence[int] = ()) -> None:
        """Take note of what a request asks, if it is one of the sample."""
        if not text or self._clock() < self._next:
            return
        self._next = self._clock() + 1 / SAMPLED_PER_S
        self._heard[tenant, request_id] = (text, prompt)
        if len(self._heard) > WAITING:
            self._heard.popitem(last=False)

    async def emit(self, signal: Outcome | Feedback) -> None:
        """Pass a signal on. Never waits for an embedding."""
        heard = None
        if isinstance(signal, Outcome) and signal.arm != "shadow":
            heard = self._heard.pop((signal.tenant, signal.request_id), None)
        if heard is None or self._queue.full():
            await self._sink.emit(signal)
        elif isinstance(signal, Outcome):
            self._queue.put_nowait((signal, heard))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Measure until the block ends; what waits then goes on unmeasured."""
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            while not self._queue.empty():
                await self._sink.emit(self._queue.get_nowait()[0])

    async def _work(self) -> None:
        while True:
            heed_cancellation()
            outcome, (text, prompt) = await self._queue.get()
            try:
                distance = await asyncio.to_thread(self._distance, outcome, text)
                if self._score and self._dev_set(outcome.tenant, outcome.deployment):
                    scored = {"prompt_logprob": await self._score(prompt)}
                    outcome = outcome.model_copy(update=scored)
            except asyncio.CancelledError:
                await self._sink.emit(outcome)
                raise
            except Exception:  # drift goes unmeasured; the outcome is evidence all the same
                log.exception("the drift of %s is not known", outcome.request_id)
                distance = None
            if distance is not None:
                found = {"semantic_distance": distance, "embedder": self._embedder.name}
                outcome = outcome.model_copy(update=found)
            await self._sink.emit(outcome)

    def _distance(self, outcome: Outcome, text: str) -> float | None:
        dev_set = self._dev_set(outcome.tenant, outcome.deployment)
        if dev_set is None:
            return None
        if dev_set not in self._envelopes:
            self._envelopes[dev_set] = self._envelope(dev_set)
            if len(self._envelopes) > KEPT:
                self._envelopes.popitem(last=False)
        envelope = self._envelopes[dev_set]
        return None if envelope is None else envelope.distance(self._embedder.embed([text])[0])

    def _envelope(self, dev_set: Digest) -> Envelope | None:
        try:
            return Envelope.of(texts_of(self._read(dev_set)), self._embedder)
        except (SluiceError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: no envelope of it, drift is not measured: %r", dev_set, error)
            return None
