"""One request on its arms.

Answer from the routed arm, fall back if a canary fails before its first byte, mirror to a shadow
afterwards, and state one outcome for each arm that was tried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from contracts.telemetry import Arm, Feedback, Outcome
from services.serving import tracing
from services.serving.boundary import Judgement, task_success
from services.serving.directory import Constraint, Route, Target
from services.serving.engine.port import (
    AdapterNotLoaded,
    Engine,
    Finished,
    Generation,
    GenerationEvent,
    GenerationRequest,
    Overloaded,
    Token,
)
from services.serving.residency import Residency

ASIDE_PRIORITY = 10
_MIRRORS_AT_ONCE = 64
_LOADS_TRIED = 5


class OutcomeSink(Protocol):
    """Where outcomes, and people's feedback on them, go."""

    async def emit(self, signal: Outcome | Feedback) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request before an arm is chosen."""

    id: str
    tenant: str
    generation: GenerationRequest
    judge: Callable[[str], Judgement] = lambda _: Judgement()
    """The boundary's verdict on an answer's text."""
    call_schema: Callable[[], dict[str, Any]] | None = None
    """Gives the schema of a call of the request's tools; None where it has none, or forbids it."""
    attempt: int = 1
    """Which try of the caller's this is."""
    operation: Literal["chat", "text_completion"] = "chat"
    traceparent: str | None = None
    """The W3C trace context the caller sent."""


def constrained(ask: Ask, constraint: Constraint | None) -> GenerationRequest:
    """The generation, under the adapter's constraint where the request sets none of its own."""
    asked = ask.generation
    if constraint is None or asked.json_schema or asked.regex or asked.grammar:
        return asked
    if constraint.schema is not None:
        return replace(asked, json_schema=dict(constraint.schema))
    return asked if ask.call_schema is None else replace(asked, json_schema=ask.call_schema())


class Execution:
    """Runs asks on a route's arms."""

    def __init__(self, engine: Engine, residency: Residency, sink: OutcomeSink) -> None:
        self._engine = engine
        self.residency = residency
        self._sink = sink
        self._mirrors: set[asyncio.Task[None]] = set()

    async def begin(self, ask: Ask, route: Route) -> Answer:
        """The answer, once its first event is there (errors up to then are raised here)."""
        try:
            answer = await self._begin(ask, route.deployment, route.arm, route.target)
        except Overloaded:
            raise
        except Exception:
            if route.fallback is None:
                raise
            answer = await self._begin(ask, route.deployment, "stable", route.fallback)
        if route.mirror is not None:
            answer.afterwards = lambda mirror=route.mirror: self._mirror(ask, route, mirror)
        return answer

    async def _begin(self, ask: Ask, deployment: str, arm: Arm, target: Target) -> Answer:
        answer = Answer(ask, deployment, arm, target.model, self._sink)
        try:
            wanted = replace(constrained(ask, target.constraint), tenant=ask.tenant)
            answer.attach(await self._submit(wanted, target))
            await answer.first()
        except Exception as error:
            await answer.conclude(error=error)
            raise
        return answer

    async def _submit(self, wanted: GenerationRequest, target: Target) -> Generation:
        """On the target's adapter, loaded again if others' loads pushed it out in between."""
        for tries_left in reversed(range(_LOADS_TRIED)):
            adapter = await self.residency.digest(target)
            try:
                return await self._engine.submit(replace(wanted, adapter=adapter))
            except AdapterNotLoaded:
                if not tries_left:
                    raise
        raise AssertionError("the loop returns or raises")

    def _mirror(self, ask: Ask, route: Route, target: Target) -> None:
        if len(self._mirrors) >= _MIRRORS_AT_ONCE:
            return  # a sample of the traffic is enough; the backlog must not grow
        # Nobody waits for a mirrored answer: it steps aside for users, and its time is its own.
        aside = replace(ask.generation, priority=ASIDE_PRIORITY, deadline_s=None)
        quiet = replace(ask, generation=aside)
        task = asyncio.create_task(self._run_mirror(quiet, route.deployment, target))
        self._mirrors.add(task)
        task.add_done_callback(self._mirrors.discard)

    async def _run_mirror(self, ask: Ask, deployment: str, target: Target) -> None:
        try:
            answer = await self._begin(ask, deployment, "shadow", target)
            async for _ in answer:
                pass
        except Exception:  # stated as the shadow's outcome; the user was answered already
            return

    async def drain(self) -> None:
        """Wait for running mirrors."""
        await asyncio.gather(*self._mirrors)


class Answer:
    """A running answer: iterate its events; its outcome is emitted when it ends."""

    def __init__(self, ask: Ask, deployment: str, arm: Arm, model: str, sink: OutcomeSink) -> None:
        self.model = model
        self.text = ""
        self.finished: Finished | None = None
        self.afterwards: Callable[[], None] | None = None
        self._ask, self._deployment, self._arm, self._sink = ask, deployment, arm, sink
        self._started = time.monotonic()
        self._first_token: float | None = None
        self._generation: Generation | None = None
        self._events: AsyncIterator[GenerationEvent] | None = None
        self._ahead: list[GenerationEvent] = []

    def attach(self, generation: Generation) -> None:
        self._generation, self._events = generation, aiter(generation)

    async def first(self) -> None:
        """Wait for the first event."""
        assert self._events is not None
        self._ahead.append(await anext(self._events))

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        assert self._events is not None
        try:
            for event in self._ahead:
                yield self._note(event)
            if self.finished is None:
                async for event in self._events:
                    yield self._note(event)
        except Exception as error:
            await self.conclude(error=error)
            raise
        finally:
            if self.finished is None and self._generation is not None:
                self._generation.cancel()
        await self.conclude()

    async def complete(self) -> list[GenerationEvent]:
        """All events, to the end."""
        async with aclosing(self.__aiter__()) as events:  # type: ignore[type-var]
            return [event async for event in events]

    def _note(self, event: GenerationEvent) -> GenerationEvent:
        if isinstance(event, Token | Finished):
            self.text += event.text
        if isinstance(event, Token) and self._first_token is None:
            self._first_token = time.monotonic()
        if isinstance(event, Finished):
            self.finished = event
        return event

    async def conclude(self, *, error: Exception | None = None) -> None:
        """State the outcome."""
        done, first = self.finished, self._first_token
        found = self._ask.judge(self.text) if error is None and done else Judgement()
        reason = done.reason if done else None
        name = type(error).__name__ if error else None
        aside = done.waited_s if done and self._arm == "shadow" else 0.0
        outcome = Outcome(
            request_id=self._ask.id,
            tenant=self._ask.tenant,
            deployment=self._deployment,
            arm=self._arm,
            model=self.model,
            at=time.time(),
            latency_ms=(time.monotonic() - self._started - aside) * 1e3,
            time_to_first_token_ms=(
                max(0.0, first - self._started - aside) * 1e3 if first else None
            ),
            prompt_tokens=len(self._ask.generation.prompt),
            completion_tokens=done.completion_tokens if done else 0,
            finish_reason=reason,
            error=name,
            schema_valid=found.schema_valid,
            task_success=task_success(error=name, finish_reason=reason, valid=found.schema_valid),
            attempt=self._ask.attempt,
            tool_call_valid=found.tool_call_valid,
            grounding=found.grounding,
            citations_supported=found.citations_supported,
            refused=found.refused,
            answer_logprob=done.answer_logprob if done else None,
        )
        tracing.record(
            outcome,
            self._ask.generation,
            operation=self._ask.operation,
            traceparent=self._ask.traceparent,
            cached_tokens=done.cached_tokens if done else 0,
        )
        await self._sink.emit(outcome)
        if error is None and self.afterwards is not None:
            self.afterwards()
