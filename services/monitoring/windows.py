"""Sliding windows: the newest verdicts of each metric, per tenant, deployment and model.

Only outcomes that a user saw count; a shadow answer reached nobody. Memory is bounded: each window
holds its last verdicts, and a model that has answered nothing in its deployment's last
`ABSENT_AFTER` requests is forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from contracts.alerts import MetricName
from contracts.telemetry import Outcome
from services.monitoring.rules import Rule

SEEN_BY_USERS = frozenset({"stable", "canary"})
ABSENT_AFTER = 1000
"""At a 1 % canary a model in use is silent this long with probability e⁻¹⁰."""
EVIDENCE = 10
"""Request ids an alert shows."""


@dataclass(frozen=True, slots=True, order=True)
class Watched:
    """Whose outcomes a window holds."""

    tenant: str
    deployment: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A metric as its window has it now."""

    value: float
    n: int
    failures: tuple[str, ...]
    """Request ids of the newest failures in the window, newest first."""


@dataclass(slots=True)
class RateWindow:
    """The last `size` verdicts of one metric."""

    size: int
    _verdicts: deque[tuple[str, bool]] = field(init=False)
    _successes: int = 0

    def __post_init__(self) -> None:
        self._verdicts = deque(maxlen=self.size)

    def add(self, request_id: str, verdict: bool) -> None:
        if len(self._verdicts) == self.size:
            self._successes -= self._verdicts[0][1]
        self._verdicts.append((request_id, verdict))
        self._successes += verdict

    def reading(self) -> Reading:
        n = len(self._verdicts)
        failures = (request for request, verdict in reversed(self._verdicts) if not verdict)
        return Reading(
            value=self._successes / n if n else 1.0,
            n=n,
            failures=tuple(request for request, _ in zip(failures, range(EVIDENCE), strict=False)),
        )


@dataclass(slots=True)
class _Model:
    windows: dict[MetricName, RateWindow]
    recent: deque[str]
    """Request ids of the newest outcomes, so that a repeated delivery counts once."""
    last: int = 0


@dataclass(slots=True)
class _Deployment:
    requests: int = 0
    models: dict[str, _Model] = field(default_factory=dict)


class Windows:
    """Every window of every deployment."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._deployments: dict[tuple[str, str], _Deployment] = {}

    def __len__(self) -> int:
        return sum(len(d.models) for d in self._deployments.values())

    def add(self, outcome: Outcome) -> bool:
        """Count an outcome; False if no user saw it, or it was counted before."""
        if outcome.arm not in SEEN_BY_USERS:
            return False
        place = (outcome.tenant, outcome.deployment)
        deployment = self._deployments.setdefault(place, _Deployment())
        model = deployment.models.get(outcome.model)
        if model is None:
            model = deployment.models[outcome.model] = self._empty()
        if outcome.request_id in model.recent:
            return False
        deployment.requests += 1
        model.last = deployment.requests
        model.recent.append(outcome.request_id)
        for rule in self._rules:
            verdict = rule.verdict(outcome)
            if verdict is not None:
                model.windows[rule.metric].add(outcome.request_id, verdict)
        self._forget_absent(deployment)
        return True

    def reading(self, watched: Watched, rule: Rule) -> Reading:
        """The metric as it stands. Raises KeyError for a model without a window."""
        deployment = self._deployments[watched.tenant, watched.deployment]
        return deployment.models[watched.model].windows[rule.metric].reading()

    def absent(self, watched: Watched) -> bool:
        """Whether the model answered none of its deployment's last `ABSENT_AFTER` requests."""
        known = self._deployments.get((watched.tenant, watched.deployment), _Deployment())
        return watched.model not in known.models and known.requests > ABSENT_AFTER

    def _forget_absent(self, deployment: _Deployment) -> None:
        for name, model in list(deployment.models.items()):
            if deployment.requests - model.last > ABSENT_AFTER:
                del deployment.models[name]

    def _empty(self) -> _Model:
        windows = {rule.metric: RateWindow(rule.window) for rule in self._rules}
        return _Model(windows, deque(maxlen=max((r.window for r in self._rules), default=1)))
