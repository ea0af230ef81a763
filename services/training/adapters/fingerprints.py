"""What the trained model says to a few prompts, so that serving can prove it serves this model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from contracts.data import Row
from contracts.training import Fingerprint
from services.training.adapters.tokens import row_prompt_ids

PROMPTS = 4
TOP = 8


def fingerprint(model: Any, tokenizer: Any, rows: Sequence[Row]) -> list[Fingerprint]:
    """The highest next-token log-probabilities after each row's prompt, adapted and frozen.

    `model` is a PEFT model; its adapter is switched off for the base's side.
    """
    model.eval()
    return [_fingerprint(model, tokenizer, row) for row in rows]


def _fingerprint(model: Any, tokenizer: Any, row: Row) -> Fingerprint:
    ids = row_prompt_ids(tokenizer, row)
    adapted_V = _next_log_probs(model, ids)
    with model.disable_adapter():
        base_V = _next_log_probs(model, ids)
    top = adapted_V.topk(min(TOP, adapted_V.numel()))
    return Fingerprint(
        messages=tuple(m.model_dump() for m in row.messages),
        tools=row.tools,
        prompt_token_ids=tuple(ids),
        top_token_ids=tuple(top.indices.tolist()),
        top_logprobs=tuple(top.values.tolist()),
        base_top_logprobs=tuple(base_V[top.indices].tolist()),
    )


@torch.no_grad()
def _next_log_probs(model: Any, ids: list[int]) -> torch.Tensor:
    input_ids = torch.tensor([ids], device=model.device)
    logits_V = model(input_ids=input_ids, logits_to_keep=1).logits[0, -1]
    log_probs_V: torch.Tensor = logits_V.float().log_softmax(-1).cpu()
    return log_probs_V
