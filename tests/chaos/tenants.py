"""Three tenants, adapters that change all the time, and an engine that says whose weights answer.

Facts are applied while requests run; adapters are more than the engine holds, so that loads and
evictions race. The engine's whole answer is the digest of the adapter it was asked to use: whatever
routing, caches and swaps did on the way, the text tells what was served.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.base import Digest, Event
from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, AdapterWithdrawn, CandidateRegistered
from contracts.rollout import RolledBack, RolloutCompleted, StageStarted
from contracts.subjects import RunRef
from contracts.telemetry import Feedback, Outcome
from services.serving.directory import Directory
from services.serving.engine.port import (
    AdapterInfo,
    AdapterNotLoaded,
    Finished,
    GenerationRequest,
    ModelInfo,
    PromptScored,
    Token,
)
from shared.testing.runs import trained_adapter

TENANTS = ("acme", "globex", "initech")
SHARED = "answers"
"""A deployment of this name is everybody's."""
SERVICE_SECRET = "sk-service"
HELD = 4
"""Adapters that the engine holds at one time."""


def digest(text: str) -> Digest:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def client_key(tenant: str) -> str:
    return f"sk-{tenant}-secret"


class Tokenizer:
    """Enough of one: every text is one token, and token 7 is whatever was said last."""

    chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [len(text) % 50 + 1]}

    def apply_chat_template(self, *_: object, **__: object) -> str:
        return "text"

    def decode(self, ids: list[int], **_: object) -> str:
        return " ".join(map(str, ids))


class Running:
    """One answer: the digest of the weights."""

    def __init__(self, adapter: Digest | None) -> None:
        self._adapter = adapter

    async def __aiter__(self) -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        yield PromptScored(tokens=(), next_token=(0.0,))
        yield Token(id=7, text=self._adapter or "base")
        yield Finished(
            reason="stop", text="", prompt_tokens=1, completion_tokens=1, cached_tokens=0
        )

    def cancel(self) -> None:
        return None


class TellingEngine:
    """An engine whose answers name the adapter they were made with."""

    ready = True
    tokenizer = Tokenizer()
    info = ModelInfo(
        label="tiny",
        base=digest("base"),
        tokenizer=digest("tokenizer"),
        max_lora_rank=64,
        target_modules=("q_proj",),
        dtype="float32",
        vocab_size=100,
        context=512,
    )

    def __init__(self) -> None:
        self._held: OrderedDict[Digest, AdapterInfo] = OrderedDict()

    async def submit(self, request: GenerationRequest) -> Running:
        await asyncio.sleep(0)
        if request.adapter is not None and request.adapter not in self._held:
            raise AdapterNotLoaded("evicted", mend="load it")
        return Running(request.adapter)

    def load_adapter(self, folder: Path, *, base: Digest | None = None) -> AdapterInfo:
        found = AdapterInfo(digest=f"sha256:{folder.name}", rank=1, bytes=1, target_modules=())
        self._held[found.digest] = found
        while len(self._held) > HELD:
            self._held.popitem(last=False)
        return found

    def unload_adapter(self, digest: Digest) -> None:
        self._held.pop(digest, None)

    def adapters(self) -> tuple[AdapterInfo, ...]:
        return tuple(self._held.values())


class Outcomes:
    """What serving says of its answers."""

    def __init__(self) -> None:
        self.said: list[Outcome | Feedback] = []

    async def emit(self, signal: Outcome | Feedback) -> None:
        self.said.append(signal)


@dataclass
class World:
    """Who owns what, and the facts that change it."""

    rng: random.Random
    directory: Directory
    owner: dict[Digest, str] = field(default_factory=dict)
    """Adapter → tenant."""
    ids: dict[str, str] = field(default_factory=dict)
    """Adapter id → tenant, withdrawn ones too."""
    late: list[Recorded] = field(default_factory=list)
    """Facts that a directory behind its log has not seen yet."""
    _seq: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _made: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def deployments(self, tenant: str) -> tuple[str, ...]:
        return (SHARED, f"{tenant}-bot")

    def names_of(self, tenant: str) -> list[str]:
        """Everything only this tenant may name."""
        own = [name for name, owner in self.ids.items() if owner == tenant]
        digests = [d for d, owner in self.owner.items() if owner == tenant]
        return [f"{tenant}-bot", *own[-20:], *(f"candidate:{d}" for d in digests[-20:])]

    def swap(self) -> None:
        """One tenant's deployment gets another adapter, or loses the one it has."""
        tenant = self.rng.choice(TENANTS)
        deployment = self.rng.choice(self.deployments(tenant))
        number = next(self._made)
        adapter, name = digest(f"{tenant}-{number}"), f"tiny-{tenant}-v{number}"
        ref = RunRef(tenant, f"run-{number}")
        self.owner[adapter] = tenant
        stage = {"deployment": deployment, "adapter_id": name, "since": 0}
        facts: list[Event] = [
            trained_adapter(adapter=adapter),
            CandidateRegistered(
                adapter_id=name, adapter=adapter, card=digest("card"), deployment=deployment
            ),
            StageStarted(stage="shadow", percent=0, **stage),
            StageStarted(stage="canary", percent=self.rng.choice([1, 50, 100]), **stage),
            RolloutCompleted(deployment=deployment, adapter_id=name, replaced="base"),
            AdapterPromoted(adapter_id=name, deployment=deployment, bundle=digest("bundle")),
        ]
        facts = facts[: self.rng.randint(1, len(facts))]
        if len(facts) > 1:
            self.ids[name] = tenant  # an id is its first owner's
        if self.rng.random() < 0.2:
            facts.append(self._step_back(tenant, deployment, name))
        for event in facts:
            self._state(ref, event)

    def lie(self) -> None:
        """Facts of one tenant that speak of another tenant's adapters."""
        liar, victim = self.rng.sample(TENANTS, 2)
        stolen = [name for name, owner in self.ids.items() if owner == victim]
        if not stolen:
            return
        name, deployment = self.rng.choice(stolen), f"{liar}-bot"
        own = digest(f"{liar}-forged-{next(self._made)}")
        self.owner[own] = liar
        stage = {"deployment": deployment, "adapter_id": name, "since": 0}
        event: Event = self.rng.choice(
            [
                CandidateRegistered(
                    adapter_id=name, adapter=own, card=digest("card"), deployment=deployment
                ),
                StageStarted(stage="canary", percent=100, **stage),
                RolloutCompleted(deployment=deployment, adapter_id=name, replaced="base"),
                self._step_back(liar, deployment, name),
            ]
        )
        self._state(RunRef(liar, "lies"), event)

    def _step_back(self, tenant: str, deployment: str, name: str) -> Event:
        if self.rng.random() < 0.5:
            return AdapterWithdrawn(
                adapter_id=name, adapter=digest(tenant), deployment=deployment, to="base",
                kind="retired", reason="r", revocation=digest("r"),
            )  # fmt: skip
        return RolledBack(deployment=deployment, adapter_id=name, to=name, reason="r", mend="m")

    def _state(self, ref: RunRef, event: Event) -> None:
        seq = next(self._seq)
        record = Recorded(
            id=f"{seq}", ref=ref, event=event, cause="", seq=seq, at=datetime.now(UTC)
        )
        self.late.append(record)
        if self.rng.random() < 0.7:
            self.arrive()

    def arrive(self) -> None:
        """The directory sees what is late."""
        while self.late:
            self.directory.apply(self.late.pop(0))

    async def catch_up(self) -> None:
        await asyncio.sleep(0)
        self.arrive()
