"""What a way of answering uses: tokens, time, and money per success. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from contracts.diagnosis import Usage
from shared.asking import Scored

PER_MTOK = 1e-6


def priced(scored: Sequence[Scored], price_per_mtok: float) -> tuple[float, ...] | None:
    """Each item's cost at a price per million tokens; None where the price is not given (0)."""
    if not price_per_mtok:
        return None
    return tuple(price_per_mtok * PER_MTOK * _tokens(item) for item in scored)


def usage(scored: Sequence[Scored], costs: Sequence[float] | None = None) -> Usage:
    """The means of `scored`, at least one item. `costs` are its items' costs.

    Per success: the whole set's tokens or cost over the sum of its scores, so failures are paid
    for by what succeeds.
    """
    successes = sum(item.value for item in scored)
    return Usage(
        requests=statistics.fmean(item.answer.requests for item in scored),
        prompt_tokens=statistics.fmean(item.answer.prompt_tokens for item in scored),
        completion_tokens=statistics.fmean(item.answer.completion_tokens for item in scored),
        latency_ms=statistics.median(item.answer.latency_ms for item in scored),
        tokens_per_success=sum(map(_tokens, scored)) / successes if successes else None,
        cost_per_success=sum(costs) / successes if costs is not None and successes else None,
    )


def _tokens(item: Scored) -> int:
    return item.answer.prompt_tokens + item.answer.completion_tokens
