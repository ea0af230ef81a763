"""Log-probabilities from a plain model's logits, token by token, to hold our losses against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def log_probs(model: Any, tokens: list[int], positions: Iterable[int]) -> list[float]:
    """log p of the tokens at `positions`, given all before them."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    rows = logits.log_softmax(-1)
    return [float(rows[i - 1, tokens[i]]) for i in positions]


def answer_log_prob(model: Any, prompt: list[int], answer: list[int]) -> float:
    """log pi(answer | prompt)."""
    tokens = prompt + answer
    return sum(log_probs(model, tokens, range(len(prompt), len(tokens))))


def log_ratio(model: Any, prompt: list[int], answer: list[int]) -> float:
    """log pi(answer | prompt) / pi_ref(answer | prompt) of a PEFT model against its base."""
    with model.disable_adapter():
        base = answer_log_prob(model, prompt, answer)
    return answer_log_prob(model, prompt, answer) - base
