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
from contracts.telemetry import Arm, Feedback, FeedbackKind, Outcome

REFERENCE_OUTCOMES = 20
"""Stable values below this number say too little about a 95th percentile."""
STALL_S = 1.0
"""A machine that stalls makes all its answers slow at once, so those are one observation: after a
slow answer, answers that began before its end or less than this after it are not looked at."""
HARD_FAULTS = frozenset({"AdapterRefused", "ArtifactCorrupt"})
"""Errors of an adapter that no other request could escape."""


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
    tool_calls: int = 0
    tool_calls_valid: int = 0
    read: int = 0
    """Answers that somebody looked at for a refusal."""
    refusals: int = 0
    faults: int = 0
    """Adapters that could not be loaded: the next request fails alike."""
    overrides: int = 0
    """Answers that people had to override."""
    incidents: int = 0
    """Confirmed safety incidents."""
    latencies_ms: list[float] = field(default_factory=list)
    """Of requests that were answered, ascending."""
    tokens: list[float] = field(default_factory=list)
    """Read and written, of requests that were answered, ascending."""
    perplexities: list[float] = field(default_factory=list)
    """Of answers, ascending."""

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
        if outcome.tool_call_valid is not None:
            self.tool_calls += 1
            self.tool_calls_valid += outcome.tool_call_valid
        if outcome.refused is not None:
            self.read += 1
            self.refusals += outcome.refused
        self.faults += outcome.error in HARD_FAULTS
        for kept, value in zip(
            (self.latencies_ms, self.tokens, self.perplexities), magnitudes(outcome), strict=True
        ):
            if value is not None:
                insort(kept, value)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """How far beyond the stable arm's 95th percentile a candidate may go."""

    latency: float = 3.0
    cost: float = 1.5
    drift: float = 1.5


@dataclass(slots=True)
class Tail:
    """How many of the candidate's values lay beyond what few of the stable arm's reach."""

    n: int = 0
    """Values that had a reference to be held against."""
    over: int = 0
    """Of those, the ones above the ratio times the stable arm's p95 of that moment."""
    pause_s: float = 0.0
    """How long nothing is looked at after a value that lay beyond; 0 where values do not depend on
    each other. Skipping what comes after is fair: it does not choose by what it skips."""
    resumes_at: float = -math.inf
    """Event time, s."""

    def add(self, value: float, most: float, *, began: float, ended: float) -> None:
        if began < self.resumes_at:
            return
        self.n += 1
        if value > most:
            self.over += 1
            if self.pause_s:
                self.resumes_at = ended + self.pause_s


@dataclass(slots=True)
class Window:
    """The fold of a stage's outcomes."""

    stage: StageName
    adapter_id: str
    ratios: Ratios = field(default_factory=Ratios)
    candidate: ArmCounts = field(default_factory=ArmCounts)
    stable: ArmCounts = field(default_factory=ArmCounts)
    pairs: Pairs = field(default_factory=Pairs)
    mirrored: int = 0
    """Requests with an outcome on both arms."""
    latency: Tail = field(default_factory=lambda: Tail(pause_s=STALL_S))
    cost: Tail = field(default_factory=Tail)
    drift: Tail = field(default_factory=Tail)
    _seen: set[tuple[str, Arm | FeedbackKind]] = field(default_factory=set)
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
            self._compare(outcome)
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

    def count(self, signal: Outcome | Feedback) -> bool:
        """`add` or `add_feedback`."""
        if isinstance(signal, Feedback):
            return self.add_feedback(signal)
        return self.add(signal)

    def add_feedback(self, feedback: Feedback) -> bool:
        """Count what a person made of an answer of this stage; False if it is none of its own."""
        arm = self.candidate if feedback.model == self.adapter_id else self.stable
        key = (feedback.request_id, feedback.kind)
        answered = any((feedback.request_id, seen) in self._seen for seen in (self.stage, "stable"))
        if key in self._seen or not (answered or feedback.kind == "safety_incident"):
            return False
        self._seen.add(key)
        arm.overrides += feedback.kind == "override"
        arm.incidents += feedback.kind == "safety_incident"
        return True

    def _compare(self, outcome: Outcome) -> None:
        stable, ratios = self.stable, self.ratios
        tails = (
            (self.latency, stable.latencies_ms, ratios.latency),
            (self.cost, stable.tokens, ratios.cost),
            (self.drift, stable.perplexities, ratios.drift),
        )
        for (tail, reference, ratio), value in zip(tails, magnitudes(outcome), strict=True):
            if value is not None and len(reference) >= REFERENCE_OUTCOMES:
                began = outcome.at - outcome.latency_ms / 1e3
                tail.add(value, ratio * upper_p95(reference), began=began, ended=outcome.at)

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


def magnitudes(outcome: Outcome) -> tuple[float | None, float | None, float | None]:
    """Latency in ms, tokens, perplexity of the answer; None where the outcome has none."""
    if outcome.error is not None:
        return None, None, None
    tokens = outcome.prompt_tokens + outcome.completion_tokens
    perplexity = None
    if outcome.answer_logprob is not None and outcome.completion_tokens:
        perplexity = math.exp(min(-outcome.answer_logprob / outcome.completion_tokens, 700.0))
    return max(outcome.latency_ms, 1e-3), float(tokens) if tokens else None, perplexity


def window_of(outcomes: Iterable[Outcome], *, stage: StageName, adapter_id: str) -> Window:
    """The window after `outcomes`."""
    window = Window(stage=stage, adapter_id=adapter_id)
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
