"""Drawing the next token, and reporting log-probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from services.serving.engine.port import Sampling, TokenLogprob

_HEAD = 256
"""Candidates looked at first: a nucleus rarely needs the whole vocabulary sorted."""
_COLD = 1e-5
"""Temperatures below this are greedy: the likeliest token would have all the probability, if
float32 could say so."""


def generator(sampling: Sampling) -> torch.Generator | None:
    """The request's own random stream; None if it is greedy."""
    if sampling.temperature < _COLD:
        return None
    draws = torch.Generator()
    if sampling.seed is None:
        draws.seed()
    else:
        draws.manual_seed(sampling.seed % 2**63)
    return draws


def shift_(logits_V: Tensor, sampling: Sampling, generated: Sequence[int]) -> None:
    """Change (V,) logits in place: biases, then the penalties for tokens `generated` holds."""
    for token, bias in sampling.logit_bias:
        logits_V[token] += bias
    if generated and (sampling.presence_penalty or sampling.frequency_penalty):
        for token, count in Counter(generated).items():
            logits_V[token] -= sampling.presence_penalty + sampling.frequency_penalty * count


def draw(logits_V: Tensor, sampling: Sampling, draws: torch.Generator | None) -> int:
    """One token id from (V,) float32 logits: temperature, then top-k, then the nucleus."""
    if draws is None:
        return int(logits_V.argmax())
    probs = torch.softmax(logits_V / sampling.temperature, -1)
    if sampling.top_k <= 0 and sampling.top_p >= 1:
        return int(torch.multinomial(probs, 1, generator=draws))
    ids, kept = _truncated(probs, sampling)
    return int(ids[torch.multinomial(kept, 1, generator=draws)])


def _truncated(probs: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    limit = sampling.top_k if sampling.top_k > 0 else len(probs)
    looked_at = min(len(probs), limit, _HEAD)
    top, ids = probs.topk(looked_at)
    enough = looked_at == limit or float(top.sum()) >= sampling.top_p
    if not enough:
        top, ids = probs.topk(min(limit, len(probs)))
    if sampling.top_p < 1:
        mass = top / top.sum() if sampling.top_k > 0 else top
        before = mass.cumsum(0) - mass
        outside = before >= sampling.top_p
        outside[0] = False  # which a top_p that float32 takes for zero would leave out
        top = top.masked_fill(outside, 0.0)
    return ids, top


def report(logprobs_V: Tensor, token: int, top: int) -> TokenLogprob:
    """`token`'s log-probability and the `top` best alternatives, of (V,) log-probabilities."""
    best: tuple[tuple[int, float], ...] = ()
    if top:
        values, ids = logprobs_V.topk(min(top, len(logprobs_V)))
        best = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token, float(logprobs_V[token]), best)
