"""Sliding windows: each metric's sums, per tenant, deployment and model.

Only outcomes that a user saw count; a mirrored answer reached nobody and is only compared with the
one its user saw. Memory is bounded: a window keeps its newest requests or its hours' buckets, and a
model that has answered nothing in its deployment's last `ABSENT_AFTER` requests is forgotten. Only
the frozen base never is: others are measured against it.
"""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from contracts.telemetry import Feedback, Outcome
from services.monitoring.rules import Rule
from services.monitoring.signals import PAIRED, SIGNALS, Share, regressed, task_success

SEEN_BY_USERS = frozenset({"stable", "canary"})
BASE = "base"
ABSENT_AFTER = 1000
"""At a 1 % canary a model in use is silent this long with probability e⁻¹⁰."""
REMEMBERED = 256
"""Newest requests of a model whose repetition, or mirrored twin, is recognized."""
EVIDENCE = 10
"""Request ids an alert shows."""
BUCKETS = 24
"""Parts that a window of hours forgets one at a time."""


@dataclass(frozen=True, slots=True, order=True)
class Watched:
    """Whose outcomes a window holds."""

    tenant: str
    deployment: str
    model: str


@dataclass(slots=True)
class Sums:
    """A ratio in the making."""

    over: float = 0.0
    of: float = 0.0
    requests: int = 0

    def add(self, share: Share, sign: int = 1) -> None:
        self.over += sign * share.over
        self.of += sign * share.of
        self.requests += sign * (share.of > 0)

    @property
    def value(self) -> float | None:
        return self.over / self.of if self.of > 0 else None


class Window(Protocol):
    """The newest of one metric."""

    sums: Sums

    def add(self, request_id: str, at: float, share: Share) -> None: ...

    def troubles(self) -> tuple[str, ...]:
        """Requests that are evidence, newest first, at most `EVIDENCE`."""
        ...


class LastRequests:
    """The last `size` requests, 16 bytes each."""

    def __init__(self, size: int) -> None:
        self.sums = Sums()
        self._size = size
        self._count = 0
        self._over = array("d")
        self._of = array("d")
        self._troubles: deque[tuple[int, str]] = deque(maxlen=EVIDENCE)

    def add(self, request_id: str, at: float, share: Share) -> None:
        place = self._count % self._size
        if self._count < self._size:
            self._over.append(share.over)
            self._of.append(share.of)
        else:
            self.sums.add(Share(self._over[place], self._of[place]), -1)
            self._over[place], self._of[place] = share.over, share.of
        self._count += 1
        self.sums.add(share)
        if share.trouble:
            self._troubles.append((self._count, request_id))

    def troubles(self) -> tuple[str, ...]:
        oldest = self._count - self._size
        return tuple(request for number, request in reversed(self._troubles) if number > oldest)


class LastHours:
    """The last `hours` of event time, forgotten in `BUCKETS` parts."""

    def __init__(self, hours: float) -> None:
        self.sums = Sums()
        self._width_s = hours * 3600 / BUCKETS
        self._buckets: deque[tuple[int, Sums]] = deque()
        self._troubles: deque[tuple[int, str]] = deque(maxlen=EVIDENCE)

    def add(self, request_id: str, at: float, share: Share) -> None:
        number = int(at // self._width_s)
        newest = self._buckets[-1][0] if self._buckets else number
        if number > newest or not self._buckets:
            self._buckets.append((number, Sums()))
            self._forget(number - BUCKETS)
        self._buckets[-1][1].add(share)  # a late one counts as of now
        self.sums.add(share)
        if share.trouble:
            self._troubles.append((max(number, newest), request_id))

    def _forget(self, until: int) -> None:
        while self._buckets[0][0] <= until:
            _, old = self._buckets.popleft()
            self.sums.over -= old.over
            self.sums.of -= old.of
            self.sums.requests -= old.requests
        while self._troubles and self._troubles[0][0] <= until:
            self._troubles.popleft()

    def troubles(self) -> tuple[str, ...]:
        return tuple(request for _, request in reversed(self._troubles))


@dataclass(slots=True)
class _Model:
    windows: dict[str, Window]
    first: dict[str, Sums]
    """Of the rules that compare with the model's first requests."""
    counted: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """The newest outcomes and feedback, so that a repeated delivery counts once."""
    last: int = 0


@dataclass(slots=True)
class _Deployment:
    requests: int = 0
    models: dict[str, _Model] = field(default_factory=dict)
    answered: OrderedDict[str, Share] = field(default_factory=OrderedDict)
    """Success of the newest requests of users, for their mirrored twins to be compared with."""


class Windows:
    """Every window of every deployment."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._deployments: dict[tuple[str, str], _Deployment] = {}

    def __len__(self) -> int:
        return sum(len(d.models) for d in self._deployments.values())

    def add(self, signal: Outcome | Feedback) -> tuple[Rule, ...]:
        """Count it; the rules whose metric it moved. Nothing moves if it was counted before."""
        place = (signal.tenant, signal.deployment)
        deployment = self._deployments.setdefault(place, _Deployment())
        mirrored = isinstance(signal, Outcome) and signal.arm not in SEEN_BY_USERS
        if mirrored and signal.request_id not in deployment.answered:
            return ()
        model = deployment.models.get(signal.model)
        if model is None:
            model = deployment.models[signal.model] = self._empty(deployment.requests)
        kind = signal.kind if isinstance(signal, Feedback) else signal.arm
        if not _new(model.counted, f"{kind}:{signal.request_id}"):
            return ()
        if isinstance(signal, Outcome) and not mirrored:
            deployment.requests += 1
            model.last = deployment.requests
            if (success := task_success(signal)) is not None:
                _keep(deployment.answered, signal.request_id, success)
        moved = tuple(rule for rule in self._rules if self._count(rule, signal, deployment, model))
        self._forget_absent(deployment)
        return moved

    def _count(
        self, rule: Rule, signal: Outcome | Feedback, deployment: _Deployment, model: _Model
    ) -> bool:
        mirrored = isinstance(signal, Outcome) and signal.arm not in SEEN_BY_USERS
        if mirrored != (rule.signal == PAIRED):
            return False
        if isinstance(signal, Outcome) and mirrored:
            share = regressed(deployment.answered[signal.request_id], signal)
        else:
            share = SIGNALS[rule.signal](signal)
        if share is None:
            return False
        model.windows[rule.key].add(signal.request_id, signal.at, share)
        first = model.first.get(rule.key)
        if first is not None and first.requests < rule.minimum:
            first.add(share)
        return True

    def sums(self, watched: Watched, rule: Rule) -> Sums:
        """The metric's sums as they stand. Raises KeyError for a model without a window."""
        deployment = self._deployments[watched.tenant, watched.deployment]
        return deployment.models[watched.model].windows[rule.key].sums

    def value(self, watched: Watched, rule: Rule) -> float | None:
        """The metric as it stands, against its reference; None while there is no telling."""
        deployment = self._deployments[watched.tenant, watched.deployment]
        model = deployment.models[watched.model]
        value = model.windows[rule.key].sums.value
        if value is None or rule.reference == "none":
            return value
        if rule.reference == "first":
            reference = model.first[rule.key]
        elif BASE in deployment.models and watched.model != BASE:
            reference = deployment.models[BASE].windows[rule.key].sums
        else:
            return None
        if reference.value is None or reference.requests < rule.minimum:
            return None
        related = rule.relate(value, reference.value)
        return related if related is not None and math.isfinite(related) else None

    def troubles(self, watched: Watched, rule: Rule) -> tuple[str, ...]:
        deployment = self._deployments[watched.tenant, watched.deployment]
        return deployment.models[watched.model].windows[rule.key].troubles()

    def absent(self, watched: Watched) -> bool:
        """Whether the model answered none of its deployment's last `ABSENT_AFTER` requests."""
        known = self._deployments.get((watched.tenant, watched.deployment), _Deployment())
        model = known.models.get(watched.model)
        return known.requests - (model.last if model else 0) > ABSENT_AFTER

    def _forget_absent(self, deployment: _Deployment) -> None:
        for name, model in list(deployment.models.items()):
            if deployment.requests - model.last > ABSENT_AFTER and name != BASE:
                del deployment.models[name]

    def _empty(self, now: int) -> _Model:
        windows: dict[str, Window] = {
            rule.key: LastRequests(rule.requests)
            if rule.requests is not None
            else LastHours(rule.hours or 0)
            for rule in self._rules
        }
        first = {rule.key: Sums() for rule in self._rules if rule.reference == "first"}
        return _Model(windows, first, last=now)


def _new(counted: OrderedDict[str, None], key: str) -> bool:
    if key in counted:
        return False
    _keep(counted, key, None)
    return True


def _keep(kept: OrderedDict[str, Any], key: str, value: Any) -> None:
    kept[key] = value
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)
