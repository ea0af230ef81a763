"""A stage's window: what the outcomes since its start say about each arm.

Only three kinds of outcome count: the candidate's in this stage's arm (`shadow` or `canary`), and
the stable arm's of the same deployment. Each `(request, arm)` counts once, however often the bus
delivers it. The window is a fold: the same outcomes in the same order give the same numbers, so a
restarted service that reads the stream again knows what the stopped one knew.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from contracts.rollout import StageName
from contracts.telemetry import Arm, Outcome

REFERENCE_OUTCOMES = 20
"""Stable latencies below this number say too little about a 95th percentile."""


@dataclass(slots=True)
class ArmCounts:
    """What one arm did."""

    n: int = 0
    errors: int = 0
    judged: int = 0
    """Outcomes with a verdict on success. An error is a verdict."""
    successes: int = 0
    with_schema: int = 0
    valid: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    """Of requests that were answered, ascending."""

    def add(self, outcome: Outcome) -> None:
        self.n += 1
        self.errors += outcome.error is not None
        success = succeeded(outcome)
        if success is not None:
            self.judged += 1
            self.successes += success
        if outcome.schema_valid is not None:
            self.with_schema += 1
            self.valid += outcome.schema_valid
        if outcome.error is None:
            insort(self.latencies_ms, max(outcome.latency_ms, 1e-3))

    def latency_ms(self, q: float) -> float:
        """The `q`-th percentile; NaN if nothing was answered."""
        return percentile(self.latencies_ms, q)


@dataclass(slots=True)
class Pairs:
    """Mirrored requests with a verdict on both arms, as the four cells of a paired comparison."""

    both: int = 0
    lost: int = 0
    """Only the stable arm succeeded."""
    gained: int = 0
    """Only the candidate succeeded."""
    neither: int = 0

    @property
    def n(self) -> int:
        return self.both + self.lost + self.gained + self.neither

    def add(self, stable: bool, candidate: bool) -> None:
        match stable, candidate:
            case True, True:
                self.both += 1
            case True, False:
                self.lost += 1
            case False, True:
                self.gained += 1
            case _:
                self.neither += 1


@dataclass(slots=True)
class Window:
    """The fold of a stage's outcomes."""

    stage: StageName
    adapter_id: str
    latency_limit: float
    """Candidate p95 over stable p95 that is still acceptable."""
    candidate: ArmCounts = field(default_factory=ArmCounts)
    stable: ArmCounts = field(default_factory=ArmCounts)
    pairs: Pairs = field(default_factory=Pairs)
    mirrored: int = 0
    """Requests with an outcome on both arms."""
    timed: int = 0
    """Candidate latencies that had a reference to be held against."""
    slow: int = 0
    """Of those, the ones above `latency_limit` times the stable arm's p95 of that moment."""
    _seen: set[tuple[str, Arm]] = field(default_factory=set)
    _waiting: dict[str, Outcome] = field(default_factory=dict)

    @property
    def outcomes(self) -> int:
        """What the stage collects: mirrored pairs in shadow, candidate outcomes in a canary."""
        return self.mirrored if self.stage == "shadow" else self.candidate.n

    def add(self, outcome: Outcome) -> bool:
        """Count an outcome; False if it is none of this stage's, or was counted before."""
        candidate = outcome.arm == self.stage and outcome.model == self.adapter_id
        key = (outcome.request_id, outcome.arm)
        if not (candidate or outcome.arm == "stable") or key in self._seen:
            return False
        self._seen.add(key)
        if candidate:
            self._time(outcome)
            self.candidate.add(outcome)
        else:
            self.stable.add(outcome)
        if self.stage == "shadow":
            self._pair(outcome)
        return True

    def add_reference(self, outcome: Outcome) -> None:
        """Count a stable outcome from before the stage: all there is when none is left in it."""
        if outcome.arm == "stable":
            self.add(outcome)

    def _time(self, outcome: Outcome) -> None:
        if outcome.error is None and len(self.stable.latencies_ms) >= REFERENCE_OUTCOMES:
            self.timed += 1
            limit_ms = self.latency_limit * upper_p95(self.stable.latencies_ms)
            self.slow += outcome.latency_ms > limit_ms

    def _pair(self, outcome: Outcome) -> None:
        other = self._waiting.pop(outcome.request_id, None)
        if other is None:
            self._waiting[outcome.request_id] = outcome
            return
        self.mirrored += 1
        stable, candidate = (outcome, other) if outcome.arm == "stable" else (other, outcome)
        verdicts = succeeded(stable), succeeded(candidate)
        if verdicts[0] is not None and verdicts[1] is not None:
            self.pairs.add(verdicts[0], verdicts[1])


def succeeded(outcome: Outcome) -> bool | None:
    """Whether the request succeeded; None if nobody could say. An error never succeeds."""
    return False if outcome.error is not None else outcome.task_success


def window_of(
    outcomes: Iterable[Outcome], *, stage: StageName, adapter_id: str, latency_limit: float = 3.0
) -> Window:
    """The window after `outcomes`."""
    window = Window(stage=stage, adapter_id=adapter_id, latency_limit=latency_limit)
    for outcome in outcomes:
        window.add(outcome)
    return window


def percentile(ascending: Sequence[float], q: float) -> float:
    """The `q`-th percentile by linear interpolation; NaN of nothing."""
    if not ascending:
        return math.nan
    place = (len(ascending) - 1) * q / 100
    below = math.floor(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (ascending[above] - ascending[below]) * (place - below)


def upper_p95(ascending: Sequence[float]) -> float:
    """An upper 95 % confidence bound of the 95th percentile: an order statistic.

    The rank is the binomial's normal approximation (Hahn & Meeker 1991, §5.2), at most the maximum.
    Being above the true p95 it favours the candidate while few stable latencies are known.
    """
    n = len(ascending)
    rank = math.ceil(0.95 * n + 1.645 * math.sqrt(n * 0.95 * 0.05))
    return ascending[min(rank, n) - 1]
