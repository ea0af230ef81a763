"""What one outcome or one piece of feedback adds to a metric: every metric is a ratio of sums.

`rules.yaml` names a signal by its function's name. `None`: it says nothing about this metric.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from contracts.telemetry import Feedback, Outcome


class Share(NamedTuple):
    """`over` of `of`, and whether the request is evidence of trouble."""

    over: float
    of: float
    trouble: bool = False


Signal = Callable[[Outcome | Feedback], Share | None]

ADAPTER_FAULTS = frozenset(
    {"AdapterRefused", "ArtifactCorrupt", "ArtifactMissing", "OSError", "DeadlineExceeded"}
)
"""Errors of loading or swapping an adapter, and answers later than their caller allowed."""


EDGE = 1.5
"""Dev sets' own distances that a request may lie from their middle (ERRATA 13)."""


_YES, _NO = Share(1.0, 1), Share(0.0, 1, trouble=True)
_SEEN, _REPORTED = Share(0, 1), Share(1, 0, trouble=True)
_ANSWERED, _FAULT = Share(1, 1), Share(1.0, 1, trouble=True)


def _yes(value: bool | None) -> Share | None:
    if value is None:
        return None
    return _YES if value else _NO


def task_success(signal: Outcome | Feedback) -> Share | None:
    """A failed request is no success."""
    if isinstance(signal, Feedback):
        return None
    return _yes(False if signal.error is not None else signal.task_success)


def schema_valid(signal: Outcome | Feedback) -> Share | None:
    """A failed request says nothing about its schema."""
    if isinstance(signal, Feedback) or signal.error is not None:
        return None
    return _yes(signal.schema_valid)


def first_attempt_valid(signal: Outcome | Feedback) -> Share | None:
    """As `schema_valid`, of first tries alone."""
    if isinstance(signal, Feedback) or signal.attempt > 1:
        return None
    return schema_valid(signal)


def tool_call_valid(signal: Outcome | Feedback) -> Share | None:
    if isinstance(signal, Feedback) or signal.error is not None:
        return None
    return _yes(signal.tool_call_valid)


def grounding(signal: Outcome | Feedback) -> Share | None:
    """The mean share of sentences that the documents bear out."""
    if isinstance(signal, Feedback) or signal.grounding is None:
        return None
    return Share(signal.grounding, 1, signal.grounding < 1)


def citations_supported(signal: Outcome | Feedback) -> Share | None:
    return None if isinstance(signal, Feedback) else _yes(signal.citations_supported)


def tokens_per_success(signal: Outcome | Feedback) -> Share | None:
    """Tokens read and written, for each success: on one platform the cost is proportional."""
    if isinstance(signal, Feedback):
        return None
    succeeded = signal.error is None and signal.task_success is not False
    return Share(signal.prompt_tokens + signal.completion_tokens, float(succeeded), not succeeded)


def overridden(signal: Outcome | Feedback) -> Share | None:
    return _reported(signal, "override")


def corrected(signal: Outcome | Feedback) -> Share | None:
    return _reported(signal, "correction")


def rightly_answered(signal: Outcome | Feedback) -> Share | None:
    """Answers that nobody reported as a false refusal."""
    if isinstance(signal, Feedback):
        return Share(-1, 0, trouble=True) if signal.kind == "false_refusal" else None
    return _ANSWERED


def harmed(signal: Outcome | Feedback) -> Share | None:
    """A confirmed incident counts whether or not its outcome has been seen."""
    if isinstance(signal, Feedback):
        return _FAULT if signal.kind == "safety_incident" else None
    return _SEEN


def adapter_fault(signal: Outcome | Feedback) -> Share | None:
    if isinstance(signal, Feedback):
        return None
    return _FAULT if signal.error in ADAPTER_FAULTS else _SEEN


def surprise(signal: Outcome | Feedback) -> Share | None:
    """Nats per generated token: the logarithm of the answers' perplexity."""
    if isinstance(signal, Feedback) or signal.answer_logprob is None:
        return None
    if not signal.completion_tokens:
        return None
    return Share(-signal.answer_logprob, signal.completion_tokens)


def prompt_surprise(signal: Outcome | Feedback) -> Share | None:
    """Nats per token of the sampled requests: the logarithm of their perplexity to the base."""
    if isinstance(signal, Feedback) or signal.prompt_logprob is None or signal.prompt_tokens < 2:
        return None
    return Share(-signal.prompt_logprob, signal.prompt_tokens - 1)


def strayed(signal: Outcome | Feedback) -> Share | None:
    """The mean distance of the sampled requests from their task envelope."""
    if isinstance(signal, Feedback) or signal.semantic_distance is None:
        return None
    return Share(signal.semantic_distance, 1, signal.semantic_distance > EDGE)


def regressed(stable: Share, mirrored: Outcome) -> Share | None:
    """The candidate fails a request that the stable model, asked the same, answers."""
    now = task_success(mirrored)
    if now is None:
        return None
    worse = stable.over > now.over
    return Share(float(worse), 1, worse)


def _reported(signal: Outcome | Feedback, kind: str) -> Share | None:
    if isinstance(signal, Feedback):
        return _REPORTED if signal.kind == kind else None
    return _SEEN


SIGNALS: dict[str, Signal] = {
    signal.__name__: signal
    for signal in (
        task_success,
        schema_valid,
        first_attempt_valid,
        tool_call_valid,
        grounding,
        citations_supported,
        tokens_per_success,
        overridden,
        corrected,
        rightly_answered,
        harmed,
        adapter_fault,
        surprise,
        prompt_surprise,
        strayed,
    )
}
PAIRED = "regressed"
"""The one signal of two outcomes: a mirrored request's and its user's."""
