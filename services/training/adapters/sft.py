"""Supervised fine-tuning on completions: TRL's SFTTrainer in our session.

One process on CPUs works on a large batch in parts. The loss is a sum over the batch's tokens, so
its gradient is the sum of the parts'; what a part keeps for its backward pass is gone before the
next begins, and each is padded to its own longest row only.
"""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from peft import PeftConfig
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from services.training.adapters import world
from services.training.adapters.session import Session
from services.training.adapters.session_trainer import SessionTrainer, shared_arguments
from services.training.adapters.tokens import Corpus
from services.training.bucketing import PART_TOKENS, parts

_ROWS = {"input_ids", "labels", "attention_mask"}


class CompletionTrainer(SessionTrainer, SFTTrainer):
    """SFTTrainer over tokenized completions, for one session."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        corpus: Corpus,
        session: Session,
        *,
        peft_config: PeftConfig | None,
    ) -> None:
        super().__init__(
            session,
            model=model,
            tokenizer=tokenizer,
            dataset=_dataset(corpus),
            lengths=corpus.lengths,
            too_long=corpus.too_long,
            arguments=SFTConfig(
                **shared_arguments(session.plan, session.checkpoints),
                max_length=None,  # rows too long are left out before, never cut
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            peft_config=peft_config,
        )

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        whole = num_items_in_batch is None or inputs.keys() != _ROWS
        if whole or world.size() > 1 or torch.cuda.is_available():
            return super().training_step(model, inputs, num_items_in_batch)
        lengths = inputs["attention_mask"].sum(1).tolist()
        losses = []
        for rows in parts(lengths, PART_TOKENS):
            width = lengths[rows[0]]
            part = {name: tensor[rows, :width] for name, tensor in inputs.items()}
            losses.append(super().training_step(model, part, num_items_in_batch))
        return torch.stack(losses).sum()

    @torch.no_grad()
    def mean_loss(self, corpus: Corpus, *, of: Any = None) -> float | None:
        """Negative log-likelihood per completion token over `corpus`; None if it is empty.

        `of` is a model with TRL's fused head; without it, the model being trained.
        """
        network = self.network if of is None else of
        network.eval()
        total, tokens = 0.0, 0
        examples = sorted(corpus.examples, key=lambda example: len(example.input_ids))
        for start in range(0, len(examples), self.args.per_device_train_batch_size):
            batch = examples[start : start + self.args.per_device_train_batch_size]
            rows = [{"input_ids": e.input_ids, "labels": e.labels} for e in batch]
            collate: Any = self.data_collator
            inputs: Any = self._prepare_inputs(collate(rows))
            outputs = network(**inputs, fused_lm_head=True)
            total -= float(outputs.log_probs.sum())
            tokens += int(outputs.label_mask.sum())
        return total / tokens if tokens else None


def _dataset(corpus: Corpus) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": [example.input_ids for example in corpus.examples],
            "labels": [example.labels for example in corpus.examples],
        }
    )
