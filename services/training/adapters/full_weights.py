"""Every weight of the blocks' linear layers moves, and the change is handed over as a LoRA.

Serving holds one base and many adapters, and gates, canary and rollback all swap adapters. So a
full-weight training ends as one too: the change dW of each layer becomes the product (alpha/r) B A
that is nearest to it among those of rank r, by its singular value decomposition (Eckart and Young,
1936). What that leaves out is measured: `change_kept` is the share of the change's squared norm,
and the validation loss of the whole change stands beside that of what serves. What could not be
served (embeddings, norms, head) is not trained. `sluice merge` makes a checkpoint of it.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head

from services.training.adapters.base import load_base
from services.training.adapters.completion_head import add_completion_head
from services.training.adapters.likelihood import Start, rank_of
from services.training.adapters.methods.lora import lora_config
from services.training.adapters.session import Session
from services.training.adapters.sft import CompletionTrainer
from services.training.adapters.sharding import gathered

_SPARE = 16
"""Directions looked at beyond r, and `_PASSES` over the change, by which a random start finds the
largest r (Halko et al., 2011, arXiv:0909.4061)."""
_PASSES = 4


class EveryWeight:
    """The linear layers of the blocks move whole."""

    loss_before = "validation_loss_whole"

    def start(self, session: Session) -> Start:
        """The base, frozen but for the layers that an adapter could change."""
        session.channel.working("loading the base")
        model, tokenizer = load_base(session.plan)
        names = {f"{name}.weight" for name in _adapted(session, model)}
        for name, weight in model.named_parameters():
            weight.requires_grad_(name in names)
        return Start(model, tokenizer, None)

    def finish(self, session: Session, trainer: CompletionTrainer) -> tuple[Any, dict[str, float]]:
        """The base with the nearest A and B, and the share of the change they keep."""
        session.channel.working("writing the change as a low-rank adapter")
        lora = rank_of(session.plan.recipe)
        trainer.release()
        base, _ = load_base(session.plan)
        add_fused_lm_head(base)
        add_completion_head(base)
        served: Any = get_peft_model(base, lora_config(lora))
        whole = kept = 0.0
        for name in _adapted(session, trainer.network):
            layer = served.get_submodule(f"base_model.model.{name}")
            trained = gathered(trainer.network.get_submodule(name).weight.data)
            change = trained - layer.base_layer.weight.data
            a, b = nearest_product(change, lora.r, seed=session.plan.recipe.train.seed)
            layer.lora_A["default"].weight.data.copy_(a)
            layer.lora_B["default"].weight.data.copy_(b / layer.scaling["default"])
            whole += float(change.double().square().sum())
            kept += float((b @ a).double().square().sum())
        return served, {"change_kept": kept / whole if whole else 1.0}


def nearest_product(change: Tensor, rank: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank) whose product B A is nearest to `change` (out, in).

    Each has half of every singular value. Rows beyond the change's own rank are zero.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(
            change.float(), q=min(rank + _SPARE, *change.shape), niter=_PASSES
        )
    found = min(rank, len(s))
    root = s[:found].sqrt()
    a, b = change.new_zeros(rank, change.shape[1]), change.new_zeros(change.shape[0], rank)
    a[:found], b[:, :found] = (v[:, :found] * root).T, u[:, :found] * root
    return a, b


def _adapted(session: Session, model: Any) -> list[str]:
    """Names of the linear layers that the recipe's adapter changes; never the head."""
    targets = rank_of(session.plan.recipe).target_modules
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not model.get_output_embeddings()
        and (targets == "all-linear" or name.rsplit(".", 1)[-1] in targets)
    ]
