"""The language-model head on completion positions only.

A prompt of 210 tokens and an answer of 40 over a vocabulary of 49,152: scoring every position
spends five sixths of the head's work on logits the loss never reads. TRL's fused head skips them
where Triton runs and scores every position elsewhere; this head skips them everywhere.
"""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the field's spelling)
from trl.trainer.utils import FusedCausalLMOutput

from services.training.adapters.sharding import gathered

_SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")

_ROWS = 32
"""Rows of the vocabulary's width that the metrics of a step copy at once."""


def add_completion_head(model: Any) -> bool:
    """Make `model(..., labels=labels_BT, fused_lm_head=True)` score labelled positions only.

    Call it on the base model after TRL has added its own head; the answer is the same
    `FusedCausalLMOutput`, so losses and metrics of the trainers stay as they are. False, and
    nothing changed, for a model that caps or scales its logits or routes experts.
    """
    if _is_special(model):
        return False
    wrapped = model.forward

    def forward(
        self: Any,
        *args: Any,
        fused_lm_head: bool = False,
        labels: torch.Tensor | None = None,
        num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head or labels is None:
            if labels is not None:
                kwargs["labels"] = labels
            if num_items_in_batch is not None:
                kwargs["num_items_in_batch"] = num_items_in_batch
            return wrapped(*args, fused_lm_head=fused_lm_head, **kwargs)
        kwargs["use_cache"] = False
        hidden_BTH = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        return score(hidden_BTH, self.get_output_embeddings(), labels[:, 1:], num_items_in_batch)

    model.forward = types.MethodType(forward, model)
    return True


def add_completion_logits(model: Any) -> None:
    """Make `model(..., completion_logits=labels_BT)` give the (N, V) logits that predict labels.

    N counts the labels but -100, row by row. Call it on the base model, under whatever wraps it:
    the hooks of wrappers (adapters, data parallelism) run as for any forward pass. A model that
    caps or scales its logits scores every position, and those of labels are taken.
    """
    wrapped, special = model.forward, _is_special(model)

    def forward(
        self: Any, *args: Any, completion_logits: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        if completion_logits is None:
            return wrapped(*args, **kwargs)
        kwargs["use_cache"] = False
        mask_BT = completion_logits[:, 1:] != -100
        if special:
            return wrapped(*args, **kwargs).logits[:, :-1][mask_BT].float()
        hidden_BTH = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        head = self.get_output_embeddings()
        return F.linear(hidden_BTH[mask_BT], head.weight, head.bias).float()

    model.forward = types.MethodType(forward, model)


def _is_special(model: Any) -> bool:
    config = model.config.get_text_config()
    return any(getattr(config, name, None) for name in (*_SCALED, "output_router_logits"))


def score(
    hidden_BTH: torch.Tensor,
    head: Any,
    labels_BT: torch.Tensor,
    items: Any = None,
) -> FusedCausalLMOutput:
    """Log-probability, entropy, mean logit and top-1 hit of each label but -100; zero elsewhere."""
    mask = labels_BT != -100
    weight, bias = gathered(head.weight), gathered(head.bias)
    logits_NV = F.linear(hidden_BTH[mask], weight, bias).float()
    log_probs_N = -F.cross_entropy(logits_NV, labels_BT[mask], reduction="none")
    entropy_N, mean_N, best_N = _described(logits_NV.detach())
    top1_N = best_N == labels_BT[mask]
    log_probs = log_probs_N.new_zeros(mask.shape).masked_scatter(mask, log_probs_N)
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / (mask.sum().clamp(min=1) if items is None else items),
        log_probs=log_probs,
        mean_logits=mean_N.new_zeros(mask.shape).masked_scatter(mask, mean_N),
        entropy=entropy_N.new_zeros(mask.shape).masked_scatter(mask, entropy_N),
        is_top1=torch.zeros_like(mask).masked_scatter(mask, top1_N),
        label_mask=mask,
    )


def _described(logits_NV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Entropy, mean and index of the highest logit of each row, a few rows in memory at a time."""
    entropies, means, bests = [], [], []
    for rows_nV in torch.split(logits_NV, _ROWS):
        normal_nV = rows_nV.log_softmax(-1)
        entropies.append(-(normal_nV.exp() * normal_nV).sum(-1))
        means.append(rows_nV.mean(-1))
        bests.append(rows_nV.argmax(-1))
    return torch.cat(entropies), torch.cat(means), torch.cat(bests)
