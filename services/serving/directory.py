"""Who may name what, and which arm answers: the run log, projected for routing. Pure.

A deployment has a stable arm (`base` or a promoted adapter) and, during a rollout, a candidate that
mirrors (shadow) or answers a share of the conversations (canary). Facts may arrive twice; the
newest of each deployment, by stream sequence, decides. Which to believe is `trust`'s business.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from contracts.base import Digest
from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, AdapterWithdrawn, CandidateRegistered
from contracts.rollout import RolledBack, RolloutCompleted, RolloutHeld, StageStarted
from contracts.telemetry import Arm
from contracts.training import AdapterTrained
from shared.errors import PermanentError

BASE = "base"
CANDIDATE = "candidate:"
PROMOTED_WITHIN_S = 60.0
"""A completed rollout waits so long for its promotion; then the stable arm answers."""
STACK = "+"
"""Between the adapters of a stack; no name of ours holds it."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """An adapter answers requests that set no contract of their own under this one."""

    schema: Mapping[str, Any] | None = None
    """JSON Schema of every answer; None: a call of one of the request's tools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAdapter:
    """An adapter somebody may name."""

    tenant: str
    adapter: Digest
    """The artifact tree."""
    base: Digest | None = None
    run: str | None = None
    """The run that registered it."""
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How one alias is answered."""

    tenant: str
    name: str
    stable: str = BASE
    candidate: str | None = None
    mode: Literal["none", "shadow", "canary"] = "none"
    percent: int = 0
    until: float | None = None
    """Unix time, s, up to which the candidate has its share; None: until another fact."""
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What answers: `adapter` None is the base."""

    model: str
    adapter: Digest | None = None
    base: Digest | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The arms of one request. `fallback` answers if the canary fails before its first byte."""

    deployment: str
    arm: Arm
    target: Target
    fallback: Target | None = None
    mirror: Target | None = None


class UnknownModel(LookupError):
    """No model of this name for this tenant; another tenant's model looks exactly the same."""


class StackingRefused(PermanentError):
    """Several adapters were asked for at once, and a card forbids it."""


class Directory:
    """The routing table. `apply` facts in any number; ask with `resolve`."""

    def __init__(
        self,
        *,
        base_label: str = BASE,
        records: Iterable[Recorded] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now` is Unix time, s."""
        self.base_label = base_label
        self._now = now
        self._candidates: dict[tuple[str, Digest], KnownAdapter] = {}
        self._adapters: dict[str, KnownAdapter] = {}
        self._promoted: set[str] = set()
        self._withdrawn: set[str] = set()
        self._deployments: dict[tuple[str, str], Deployment] = {}
        for record in records:
            self.apply(record)

    def apply(self, record: Recorded) -> None:
        """Take one fact in. Facts that routing does not need are ignored."""
        tenant = record.ref.tenant
        match record.event:
            case AdapterTrained() as event:
                known = KnownAdapter(tenant=tenant, adapter=event.adapter, base=event.base)
                self._candidates[tenant, event.adapter] = known
                for name, adapter in self._adapters.items():
                    if adapter.tenant == tenant and adapter.adapter == event.adapter:
                        self._adapters[name] = replace(adapter, base=event.base)
            case CandidateRegistered() as event if event.adapter_id not in self._withdrawn:
                trained = self._candidates.get((tenant, event.adapter))
                base = trained.base if trained else None
                known = KnownAdapter(
                    tenant=tenant,
                    adapter=event.adapter,
                    base=base,
                    run=record.ref.run,
                    constraint=Constraint(event.output_schema) if event.constrained else None,
                )
                owner = self._adapters.get(event.adapter_id, known).tenant
                if owner == tenant:  # an id is its first owner's
                    self._adapters[event.adapter_id] = known
                self._update(tenant, event.deployment, 0)
            case StageStarted() as event:
                self._update(
                    tenant,
                    event.deployment,
                    record.seq,
                    candidate=event.adapter_id,
                    mode=event.stage,
                    percent=event.percent if event.stage == "canary" else 0,
                    until=None,
                )
            case RolledBack() as event:
                self._settle(tenant, event.deployment, record.seq, stable=event.to)
            case RolloutHeld() as event:
                self._update(tenant, event.deployment, record.seq)
            case RolloutCompleted() as event:
                self._update(
                    tenant,
                    event.deployment,
                    record.seq,
                    candidate=event.adapter_id,
                    mode="canary",
                    percent=100,
                    until=record.at.timestamp() + PROMOTED_WITHIN_S,
                )
            case AdapterPromoted() as event:
                if self._owned(tenant, event.adapter_id):
                    self._promoted.add(event.adapter_id)
                self._settle(tenant, event.deployment, record.seq, stable=event.adapter_id)
            case AdapterWithdrawn() as event:
                self._withdraw(tenant, event, record.seq)
            case _:
                pass

    def know(self, name: str, adapter: KnownAdapter) -> None:
        """Answer to `name` with an adapter that no fact has told of."""
        self._adapters[name] = adapter

    def _update(self, tenant: str, name: str, seq: int, **changes: object) -> None:
        now = self._deployments.get((tenant, name), Deployment(tenant=tenant, name=name))
        if seq >= now.seq:
            self._deployments[tenant, name] = replace(now, seq=seq, **changes)  # type: ignore[arg-type]
        else:
            self._deployments.setdefault((tenant, name), now)

    def _settle(self, tenant: str, name: str, seq: int, *, stable: str) -> None:
        self._update(tenant, name, seq, stable=stable, **_NO_CANDIDATE)

    def _owned(self, tenant: str, adapter_id: str) -> bool:
        known = self._adapters.get(adapter_id)
        return known is not None and known.tenant == tenant

    def _withdraw(self, tenant: str, event: AdapterWithdrawn, seq: int) -> None:
        """The adapter has no name any more, and no deployment answers from it."""
        if not self._owned(tenant, event.adapter_id):
            return
        self._withdrawn.add(event.adapter_id)
        self.distrust(tenant, event.adapter_id)
        for (owner, name), deployment in list(self._deployments.items()):
            if owner == tenant and deployment.stable == event.adapter_id:
                self._update(tenant, name, seq, stable=event.to)
            if owner == tenant and deployment.candidate == event.adapter_id:
                self._update(tenant, name, seq, **_NO_CANDIDATE)

    def refuse(self, record: Recorded) -> None:
        """Take note of a fact that is not believed: its deployment answers, without the adapter."""
        tenant = record.ref.tenant
        match record.event:
            case CandidateRegistered() as event:
                self._update(tenant, event.deployment, 0)
            case AdapterPromoted() as event:
                self.distrust(tenant, event.adapter_id)
            case _:
                pass

    def distrust(self, tenant: str, adapter_id: str) -> None:
        """Serve an adapter no more: its chain does not verify, or no longer. No fact says so."""
        if self._owned(tenant, adapter_id):
            del self._adapters[adapter_id]
            self._promoted.discard(adapter_id)

    def deployment(self, tenant: str, name: str) -> Deployment | None:
        """How a deployment is answered now, of what the facts say and what is believed."""
        found = self._deployments.get((tenant, name))
        if found is None:
            return None
        if found.stable not in self._promoted:
            found = replace(found, stable=BASE)
        if found.candidate is not None and not self._owned(tenant, found.candidate):
            found = replace(found, **_NO_CANDIDATE)  # type: ignore[arg-type]
        return found

    def run_of(self, tenant: str, model: str) -> str | None:
        """The run that made an adapter; None for the base. Raises UnknownModel."""
        if model == BASE:
            return None
        self._target(tenant, model)
        return self._adapters[model].run

    def tenants(self) -> tuple[str, ...]:
        """Everybody who has a registered adapter."""
        return tuple(sorted({known.tenant for known in self._adapters.values()}))

    def adapters(self, tenant: str) -> dict[str, KnownAdapter]:
        """The tenant's registered adapters by id, in order of their ids."""
        return {i: self._adapters[i] for i in sorted(self._adapters) if self._owned(tenant, i)}

    def adapter(self, tenant: str, adapter_id: str) -> Target:
        """A registered adapter of the tenant's. Raises UnknownModel."""
        if not self._owned(tenant, adapter_id):
            raise UnknownModel(adapter_id)
        return self._target(tenant, adapter_id)

    def deployments_of(self, tenant: str, adapter_id: str) -> tuple[str, ...]:
        """The tenant's deployments that answer from an adapter, or try it."""
        return tuple(
            sorted(
                name
                for owner, name in self._deployments
                if owner == tenant
                and (d := self.deployment(owner, name))
                and adapter_id in (d.stable, d.candidate)
            )
        )

    def names(self, tenant: str) -> tuple[str, ...]:
        """What `GET /v1/models` lists for a tenant: the base, aliases and promoted adapters."""
        own = sorted(name for (owner, name) in self._deployments if owner == tenant)
        ids = sorted(i for i in self._promoted if self._owned(tenant, i))
        return tuple(dict.fromkeys((BASE, self.base_label, *own, *ids)))

    def resolve(self, model: str, *, tenant: str, evaluate: bool, conversation: str) -> Route:
        """The arms that answer `model` for `tenant`.

        Raises:
            UnknownModel: there is no such model, or it is not this tenant's.
            StackingRefused: `model` names several at once, as `one+other`.

        """
        if model in (BASE, self.base_label):
            return Route(deployment=BASE, arm="stable", target=Target(model=BASE))
        if STACK in model:
            for part in model.split(STACK):  # what is not the caller's stays unknown
                self.resolve(part, tenant=tenant, evaluate=evaluate, conversation=conversation)
            raise StackingRefused(
                f"{model} would put several adapters on one answer, and every card's stacking "
                "policy is exclusive",
                mend="ask one of them, or make one adapter of them with `sluice merge`",
            )
        if model.startswith(CANDIDATE):
            known = self._candidates.get((tenant, model.removeprefix(CANDIDATE)))
            if known is None or not evaluate:
                raise UnknownModel(model)
            target = Target(model=model, adapter=known.adapter, base=known.base)
            return Route(deployment="evaluation", arm="stable", target=target)
        deployment = self.deployment(tenant, model)
        if deployment is not None:
            return self._route(deployment, conversation)
        target = self._target(tenant, model)
        if model not in self._promoted and not evaluate:
            raise UnknownModel(model)  # a candidate answers as shadow or canary alone (ERRATA 9)
        return Route(deployment="direct", arm="stable", target=target)

    def _route(self, deployment: Deployment, conversation: str) -> Route:
        stable = self._target(deployment.tenant, deployment.stable)
        name, candidate = deployment.name, deployment.candidate
        over = deployment.until is not None and self._now() > deployment.until
        if candidate is None or over:
            return Route(deployment=name, arm="stable", target=stable)
        other = self._target(deployment.tenant, candidate)
        if deployment.mode == "shadow":
            return Route(deployment=name, arm="stable", target=stable, mirror=other)
        if in_share(name, conversation, deployment.percent):
            return Route(deployment=name, arm="canary", target=other, fallback=stable)
        return Route(deployment=name, arm="stable", target=stable)

    def _target(self, tenant: str, model: str) -> Target:
        if model == BASE:
            return Target(model=BASE)
        known = self._adapters.get(model)
        if known is None or known.tenant != tenant:
            raise UnknownModel(model)
        return Target(
            model=model, adapter=known.adapter, base=known.base, constraint=known.constraint
        )


_NO_CANDIDATE: dict[str, object] = {
    "candidate": None,
    "mode": "none",
    "percent": 0,
    "until": None,
}


def in_share(deployment: str, conversation: str, percent: int) -> bool:
    """Sticky: one conversation stays on one arm, and a growing share only adds conversations."""
    bucket = int.from_bytes(hashlib.sha256(f"{deployment}{conversation}".encode()).digest(), "big")
    return bucket % 10_000 < percent * 100
