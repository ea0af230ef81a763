"""Single judged answers: TRL's KTOTrainer in our session, its reference the frozen base.

KTO compares an answer with z, the mean log-ratio of answers to requests they do not belong to. TRL
makes those mismatches of neighbours in a fixed order of batches. Ours are batched by length, so a
row's mismatch is fixed beforehand: the answer of the row after it in the dataset, cut where it
would exceed `max_length` (it only estimates z). That does not depend on the batch, so a last batch
of one row keeps an unrelated answer too.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

import torch
from datasets import Dataset
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from services.training.adapters.answers import AnswerTrainer
from services.training.adapters.methods.lora import lora_config
from services.training.adapters.session import Session
from services.training.adapters.session_trainer import shared_arguments
from services.training.adapters.tokens import Judged, JudgedCorpus
from services.training.class_weights import ClassWeights


def with_mismatches(examples: list[Judged], *, max_length: int) -> list[dict[str, Any]]:
    """The rows as KTOTrainer reads them, each with the next row's answer as its mismatch."""
    following = examples[1:] + examples[:1]
    return [
        asdict(example)
        | {
            "KL_completion_ids": other.completion_ids[
                : max(1, max_length - len(example.prompt_ids))
            ]
        }
        for example, other in zip(examples, following, strict=True)
    ]


class JudgedTrainer(AnswerTrainer, KTOTrainer):
    """KTOTrainer over tokenized judged rows, for one session."""

    reported: ClassVar = {
        "kl": "kl",
        "rewards/margins": "reward_margin",
        "logps/chosen": "desirable_log_prob",
        "logps/rejected": "undesirable_log_prob",
    }

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        corpus: JudgedCorpus,
        session: Session,
        *,
        weights: ClassWeights,
    ) -> None:
        recipe = session.plan.recipe
        assert recipe.lora is not None
        assert recipe.preference is not None
        rows = with_mismatches(corpus.examples, max_length=recipe.train.max_length)
        super().__init__(
            session,
            model=model,
            tokenizer=tokenizer,
            dataset=Dataset.from_list(rows),
            lengths=[len(row["prompt_ids"]) + max(len(row[k]) for k in _ANSWERS) for row in rows],
            too_long=corpus.too_long,
            arguments=KTOConfig(
                **shared_arguments(session.plan, session.checkpoints),
                max_length=None,
                loss_type="kto",
                beta=recipe.preference.beta,
                desirable_weight=weights.desirable,
                undesirable_weight=weights.undesirable,
            ),
            peft_config=lora_config(recipe.lora),
        )

    @torch.no_grad()
    def measure(self, corpus: JudgedCorpus) -> dict[str, float]:
        """Mean loss, and the mean log-odds of desirable and of undesirable answers.

        Log-odds are log p / (1 - p) of a whole answer, under the adapter and, as `base_`, without
        it. A kind of which there is no row has no entry.
        """
        self.network.eval()
        size = self.args.per_device_train_batch_size
        rows = with_mismatches(
            corpus.examples, max_length=self._session.plan.recipe.train.max_length
        )
        loss, odds = 0.0, dict[str, list[float]]()
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            collate: Any = self.data_collator
            inputs: Any = self._prepare_inputs(collate(batch))
            loss += self._mean_loss(inputs) * len(batch)
            self._collect(odds, "", inputs)
            with self.network.disable_adapter():
                self._collect(odds, "base_", inputs)
        means = {name: sum(found) / len(found) for name, found in sorted(odds.items())}
        return {"loss": loss / len(rows)} | means if rows else {}

    def _collect(
        self, odds: dict[str, list[float]], prefix: str, inputs: dict[str, torch.Tensor]
    ) -> None:
        log_probs_B = self._answer_log_probs(inputs)
        odds_B = log_probs_B - torch.log(-torch.expm1(log_probs_B))
        for good, value in zip(inputs["label"].tolist(), odds_B.tolist(), strict=True):
            name = f"{prefix}{'desirable' if good else 'undesirable'}_log_odds"
            odds.setdefault(name, []).append(value)


_ANSWERS = ("completion_ids", "KL_completion_ids")
