"""Candidates of the rollout simulator, and the scripted model that answers as they behave."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from contracts.rollout import RolledBack, StageName
from contracts.run import Run
from services.serving.engine.port import Finished, GenerationRequest, Token

IN_TIME_REQUESTS, IN_TIME_S = 200, 30.0
CALL, TEXT = '{"name": "switch", "arguments": {"on": true}}', "The light in the kitchen is on."
REFUSAL = "I'm sorry, but I can't help with that."


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a model answers, as shares of its answers and means."""

    cut_off: float = 0.02
    broken: float = 0.0
    """Calls that are none."""
    errors: float = 0.0
    refuses: float = 0.0
    slow_s: float = 0.004
    tokens: int = 20
    surprise: float = 0.3
    """Nats per token."""
    overridden: float = 0.0
    incidents: float = 0.0


HEALTHY = Behaviour()
REGRESSIONS: dict[str, Behaviour] = {
    "quality": Behaviour(cut_off=0.6),
    "schema": Behaviour(broken=0.8),
    "latency": Behaviour(slow_s=0.25),
    "exceptions": Behaviour(errors=0.3),
    "cost": Behaviour(tokens=300),
    "refusals": Behaviour(refuses=0.7),
    "drift": Behaviour(surprise=2.5),
    "safety": Behaviour(incidents=0.1),
    "overrides": Behaviour(overridden=0.4),
}
ONLY_SEEN_BY_USERS = {"safety", "overrides"}


@dataclass(slots=True, kw_only=True)
class Candidate:
    """One rollout: whose, how it behaves from when on, and how it went."""

    name: str
    behaviour: Behaviour
    onset: StageName = "shadow"
    """The stage from which on it behaves so; before that it is healthy."""
    seed: int = 0
    harming: bool = False
    asked: int = 0
    """Requests it was given since the onset."""
    began: float = 0.0
    took_s: float = 0.0
    run: Run | None = None

    @property
    def now(self) -> Behaviour:
        return self.behaviour if self.harming else HEALTHY

    @property
    def rolled_back(self) -> bool:
        return self.run is not None and self.run.status == "rolled_back"

    @property
    def in_time(self) -> bool:
        return self.rolled_back and (self.asked <= IN_TIME_REQUESTS or self.took_s <= IN_TIME_S)

    @property
    def line(self) -> str:
        said = next(
            (
                r.event
                for r in reversed(self.run.log if self.run else ())
                if isinstance(r.event, RolledBack)
            ),
            None,
        )
        why = said.reason.split("Evidence of harm: ")[-1].split(". success")[0] if said else "kept"
        return f"{self.name}: {self.asked} requests, {self.took_s:.1f} s: {why}"


def injected() -> list[Candidate]:
    """Twenty: each kind in shadow and in a canary, those that only users notice in canaries."""
    found = [
        Candidate(name=f"{kind}-{onset}", behaviour=behaviour, onset=onset)
        for kind, behaviour in REGRESSIONS.items()
        if kind not in ONLY_SEEN_BY_USERS
        for onset in _ONSETS
    ] + [
        Candidate(name=f"{kind}-canary-{number}", behaviour=REGRESSIONS[kind], onset="canary")
        for kind in sorted(ONLY_SEEN_BY_USERS)
        for number in range(3)
    ]
    return [replace(one, seed=number + 1) for number, one in enumerate(found)]


_ONSETS: tuple[StageName, StageName] = ("shadow", "canary")


class Scripted:
    """A model behind the engine port that answers as its candidates behave."""

    ready = True

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.info = SimpleNamespace(context=2048, base=None, label="scripted")
        self.candidates: dict[str, Candidate] = {}
        self._draw = random.Random(0)

    def adapters(self) -> tuple[Any, ...]:
        return tuple(SimpleNamespace(digest=digest) for digest in self.candidates)

    def load_adapter(self, folder: Path, *, base: str | None = None) -> Any:
        return SimpleNamespace(digest=folder.name)

    async def submit(self, request: GenerationRequest) -> Any:
        candidate = self.candidates.get(str(request.adapter)) if request.adapter else None
        behaviour = candidate.now if candidate else HEALTHY
        if candidate is not None and candidate.harming:
            candidate.asked += 1
        draw = self._draw
        if draw.random() < behaviour.errors:
            raise RuntimeError("the adapter's kernel failed")
        asked_for_a_call = request.max_tokens == 64
        text = CALL if asked_for_a_call else TEXT
        if draw.random() < behaviour.broken:
            text = "I think the switch should be on"
        if not asked_for_a_call and draw.random() < behaviour.refuses:
            text = REFUSAL
        reason = "length" if draw.random() < behaviour.cut_off else "stop"
        tokens = max(1, round(draw.gauss(behaviour.tokens, 2)))
        surprise = draw.gammavariate(9, behaviour.surprise / 9)
        slow_s = behaviour.slow_s * draw.lognormvariate(0, 0.2)

        async def events() -> AsyncIterator[Any]:
            await asyncio.sleep(slow_s)
            yield Token(1, text)
            yield Finished(reason, "", len(request.prompt), tokens, 0, -surprise * tokens)

        return _Generation(events())


class _Generation:
    def __init__(self, events: AsyncIterator[Any]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._events

    def cancel(self) -> None:
        """Nothing runs that could be stopped."""
