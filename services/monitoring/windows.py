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
from typing import Any, NamedTuple, Protocol

from contracts.telemetry import Feedback, Outcome
from services.monitoring.rules import Rule
from services.monitoring.signals import PAIRED, SIGNALS, Share, Signal, regressed, task_success

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


class Watched(NamedTuple):
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

    def add(self, over: float, of: float) -> None:
        self.over += over
        self.of += of
        self.requests += of > 0

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
            sums, of = self.sums, self._of[place]
            sums.over -= self._over[place]
            sums.of -= of
            sums.requests -= of > 0
            self._over[place], self._of[place] = share.over, share.of
        self._count += 1
        self.sums.add(share.over, share.of)
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
        self._buckets[-1][1].add(share.over, share.of)  # a late one counts as of now
        self.sums.add(share.over, share.of)
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


class Reading(NamedTuple):
    """A metric that a signal moved, as it stands now."""

    rule: Rule
    value: float | None
    """Against its reference; None while there is no telling."""
    n: int
    """Requests in the window."""
    window: Window


class _Counted(NamedTuple):
    """A rule, with what it costs to look up for every outcome."""

    place: int
    """Of its window among a model's."""
    rule: Rule
    signal: Signal


@dataclass(slots=True)
class _Model:
    windows: list[Window]
    """One for each rule."""
    first: dict[int, Sums]
    """Of the rules that compare with the model's first requests, by their places."""
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
        every = tuple(enumerate(self._rules))
        self._single = tuple(
            _Counted(place, rule, SIGNALS[rule.signal])
            for place, rule in every
            if rule.signal != PAIRED
        )
        self._paired = tuple((place, rule) for place, rule in every if rule.signal == PAIRED)
        self._deployments: dict[tuple[str, str], _Deployment] = {}

    def __len__(self) -> int:
        return sum(len(d.models) for d in self._deployments.values())

    def add(self, signal: Outcome | Feedback) -> list[Reading]:
        """Count it; what it moved. Nothing moves if it was counted before."""
        place = (signal.tenant, signal.deployment)
        deployment = self._deployments.get(place)
        if deployment is None:
            deployment = self._deployments[place] = _Deployment()
        mirrored = isinstance(signal, Outcome) and signal.arm not in SEEN_BY_USERS
        if mirrored and signal.request_id not in deployment.answered:
            return []
        model = deployment.models.get(signal.model)
        if model is None:
            model = deployment.models[signal.model] = self._empty(deployment.requests)
        kind = signal.kind if isinstance(signal, Feedback) else signal.arm
        if not _new(model.counted, f"{kind}:{signal.request_id}"):
            return []
        if isinstance(signal, Outcome) and not mirrored:
            deployment.requests += 1
            model.last = deployment.requests
            if (success := task_success(signal)) is not None:
                _keep(deployment.answered, signal.request_id, success)
        if isinstance(signal, Outcome) and mirrored:
            twin = deployment.answered[signal.request_id]
            shares = [(at, rule, regressed(twin, signal)) for at, rule in self._paired]
        else:
            shares = [(at, rule, read(signal)) for at, rule, read in self._single]
        moved = []
        for at, rule, share in shares:
            if share is not None:
                window = model.windows[at]
                window.add(signal.request_id, signal.at, share)
                value = window.sums.value
                if rule.reference != "none":
                    value = self._against(at, rule, value, share, deployment, signal.model)
                moved.append(Reading(rule, value, window.sums.requests, window))
        if len(deployment.models) > 1:
            self._forget_absent(deployment)
        return moved

    def _against(
        self,
        place: int,
        rule: Rule,
        value: float | None,
        share: Share,
        deployment: _Deployment,
        name: str,
    ) -> float | None:
        """`value` against its reference; None while there is no telling."""
        if rule.reference == "first":
            reference = deployment.models[name].first[place]
            if reference.requests < rule.minimum:
                reference.add(share.over, share.of)
        elif BASE in deployment.models and name != BASE:
            reference = deployment.models[BASE].windows[place].sums
        else:
            return None
        if value is None or reference.value is None or reference.requests < rule.minimum:
            return None
        related = rule.relate(value, reference.value)
        return related if related is not None and math.isfinite(related) else None

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
        windows: list[Window] = [
            LastRequests(rule.requests) if rule.requests is not None else LastHours(rule.hours or 0)
            for rule in self._rules
        ]
        first = {
            place: Sums() for place, rule in enumerate(self._rules) if rule.reference == "first"
        }
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
