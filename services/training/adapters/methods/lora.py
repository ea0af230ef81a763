"""LoRA: W = W0 + (alpha/r) B A on every linear layer of the blocks; the base stays frozen.

Hu et al., 2021 (arXiv:2106.09685). The loss is the negative log-likelihood of the answer's tokens
given the prompt.
"""

from __future__ import annotations

from typing import Any

from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from trl.trainer.utils import add_fused_lm_head

from contracts.job import LoraParameters
from services.training.adapters import world
from services.training.adapters.base import load_base
from services.training.adapters.completion_head import add_completion_head
from services.training.adapters.likelihood import Start, maximise, rank_of
from services.training.adapters.session import Session, Trained
from services.training.adapters.sft import CompletionTrainer
from services.training.adapters.sharding import gathered
from services.training.adapters.tokens import encode_file


def lora_config(lora: LoraParameters) -> LoraConfig:
    """The job's LoRA parameters in PEFT's words. `all-linear` leaves the head out."""
    targets = lora.target_modules
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


class LowRank:
    """A and B move; what was trained is what serves."""

    loss_before = ""

    def start(self, session: Session) -> Start:
        """The base in float32, and A and B to come."""
        session.channel.working("loading the base")
        model, tokenizer = load_base(session.plan)
        return Start(model, tokenizer, lora_config(rank_of(session.plan.recipe)))

    def finish(self, session: Session, trainer: CompletionTrainer) -> tuple[Any, dict[str, float]]:
        """The trained model itself, or its A and B on a whole base where it is in shards."""
        if not world.sharded():
            return trainer.network, {}
        return on_whole_base(session, trainer.network), {}


def on_whole_base(session: Session, network: Any) -> Any:
    """The base in float32, with TRL's fused head and the A and B of `network`.

    All processes of a training must ask, for each may hold a part of them.
    """
    session.channel.working("putting the adapter on the whole base")
    trained = {name: gathered(a).float() for name, a in get_peft_model_state_dict(network).items()}
    base, _ = load_base(session.plan)
    add_fused_lm_head(base)
    add_completion_head(base)
    whole: Any = get_peft_model(base, lora_config(rank_of(session.plan.recipe)))
    set_peft_model_state_dict(whole, trained)
    return whole


def train(session: Session) -> Trained:
    """Load the frozen base, add A and B, train them on the dataset's answers."""
    return maximise(session, LowRank(), encode=encode_file)
