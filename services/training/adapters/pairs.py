"""Preference pairs: TRL's DPOTrainer in our session, its reference the frozen base.

Given a model that is a PEFT model already, TRL would copy the adapter as its reference; so it is
given the base and the LoRA config. Neither side drops anything out. A row too long is left out
whole: cut, its answer would lose the tokens that were judged.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

import torch
from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from services.training.adapters.answers import AnswerTrainer, read_both, train_answers
from services.training.adapters.methods.lora import lora_config
from services.training.adapters.session import Session, Trained, preference_recipe
from services.training.adapters.session_trainer import shared_arguments
from services.training.adapters.tokens import Pairs, encode_pairs
from services.training.preference_health import LikelihoodDisplacement, LogitSaturation


def train_pairs(session: Session, *, loss: str) -> Trained:
    """Train a LoRA adapter on the dataset's pairs by TRL's DPO `loss` (`sigmoid`, `ipo`).

    Raises RunStopped, naming the row, for data that are not pairs.
    """
    preference_recipe(session.plan.recipe)
    rows, held = read_both(session)
    return train_answers(
        session,
        rows,
        held,
        encode=encode_pairs,
        trainer_of=lambda model, tokenizer, pairs: PairTrainer(
            model, tokenizer, pairs, session, loss=loss
        ),
    )


class PairTrainer(AnswerTrainer, DPOTrainer):
    """DPOTrainer over tokenized pairs, for one session."""

    reported: ClassVar = {
        "rewards/accuracies": "reward_accuracy",
        "rewards/margins": "reward_margin",
        "logps/chosen": "chosen_log_prob",
        "logps/rejected": "rejected_log_prob",
    }

    def __init__(
        self, model: Any, tokenizer: Any, pairs: Pairs, session: Session, *, loss: str
    ) -> None:
        recipe = session.plan.recipe
        assert recipe.lora is not None
        assert recipe.preference is not None
        self._displacement = LikelihoodDisplacement()
        self._saturation = LogitSaturation() if loss == "sigmoid" else None
        super().__init__(
            session,
            model=model,
            tokenizer=tokenizer,
            dataset=Dataset.from_list([asdict(pair) for pair in pairs.examples]),
            lengths=pairs.lengths,
            too_long=pairs.too_long,
            arguments=DPOConfig(
                **shared_arguments(session.plan, session.checkpoints),
                max_length=None,
                loss_type=[loss],
                beta=recipe.preference.beta,
            ),
            peft_config=lora_config(recipe.lora),
        )

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        newest = {name: values[-1] for name, values in self._metrics["train"].items()}
        step, margin = self.state.global_step + 1, newest["rewards/margins"]
        log_prob = newest["logps/chosen"]
        base = log_prob - newest["rewards/chosen"] / self.beta
        self._displacement.check(step, log_prob=log_prob, base_log_prob=base, margin=margin)
        if self._saturation is not None:
            self._saturation.check(step, margin)
        return loss

    @torch.no_grad()
    def measure(self, pairs: Pairs) -> dict[str, float]:
        """Mean loss and preference accuracy over `pairs`; empty if there are none.

        Preference accuracy is the share of pairs whose chosen answer is the likelier one, log
        pi(chosen | x) > log pi(rejected | x), under the adapter and, as `base_`, without it.
        """
        self.network.eval()
        totals = {"loss": 0.0, "preference_accuracy": 0.0, "base_preference_accuracy": 0.0}
        size = self.args.per_device_train_batch_size
        for start in range(0, len(pairs.examples), size):
            batch = pairs.examples[start : start + size]
            collate: Any = self.data_collator
            inputs: Any = self._prepare_inputs(collate([asdict(pair) for pair in batch]))
            totals["loss"] += self._mean_loss(inputs) * len(batch)
            totals["preference_accuracy"] += self._ranked(inputs)
            with self.network.disable_adapter():
                totals["base_preference_accuracy"] += self._ranked(inputs)
        n = len(pairs.examples)
        return {name: total / n for name, total in totals.items()} if n else {}

    def _ranked(self, inputs: dict[str, torch.Tensor]) -> int:
        """How many pairs of the batch have the chosen answer as the likelier one."""
        chosen_B, rejected_B = self._answer_log_probs(inputs).chunk(2)
        return int((chosen_B > rejected_B).sum())
