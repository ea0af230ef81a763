"""What preference tuning over answers has in common, in pairs (DPO, IPO) or one by one (KTO).

The rows become tokens by our own rendering, a LoRA adapter is trained by one of TRL's trainers with
the frozen base as the reference (the same model with its adapter switched off, which costs a
forward pass and no memory), and held-out rows are measured under the adapter and without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch

from contracts.data import Row
from services.training.adapters import world
from services.training.adapters.base import load_base
from services.training.adapters.session import Session, Trained
from services.training.adapters.session_trainer import SessionTrainer
from services.training.adapters.tokens import JudgedCorpus, Pairs, fitting_rows


class Encode(Protocol):
    """Rows as tokens: those that fit, and how many did not."""

    def __call__(
        self, tokenizer: Any, rows: Iterable[Row], *, max_length: int
    ) -> Pairs | JudgedCorpus: ...


class AnswerTrainer(SessionTrainer):
    """Stands before a TRL trainer of preferences in a class's bases."""

    def measure(self, corpus: Any) -> dict[str, float]:
        """Mean `loss` and the method's own measures over `corpus`; empty if there are no rows."""
        raise NotImplementedError

    def _mean_loss(self, inputs: dict[str, torch.Tensor]) -> float:
        loss: Any = self.compute_loss(self.network, inputs)
        return float(loss)

    def _answer_log_probs(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Log pi(answer | request) of each sequence of a batch (B)."""
        labels_BT = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = self.network(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=labels_BT,
            fused_lm_head=True,
        )
        log_probs_B: torch.Tensor = outputs.log_probs.double().sum(1)
        return log_probs_B

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """As it is: our rows are tokens already, rendered as serving renders them."""
        return dataset


def read_both(session: Session) -> tuple[list[Row], list[Row]]:
    """The training rows and the validation rows. Raises RunStopped, naming a row that is unfit."""
    plan = session.plan
    session.channel.working("reading the rows")
    held = fitting_rows(plan.validation, plan.recipe.method) if plan.validation is not None else []
    return fitting_rows(plan.train, plan.recipe.method), held


def train_answers(
    session: Session,
    rows: list[Row],
    held: list[Row],
    *,
    encode: Encode,
    trainer_of: Callable[[Any, Any, Any], AnswerTrainer],
) -> Trained:
    """Train on `rows` and measure on `held`; `trainer_of` gets model, tokenizer and tokens."""
    say, longest = session.channel.working, session.plan.recipe.train.max_length
    world.require_whole(session.plan.recipe.method)

    say("loading the base")
    model, tokenizer = load_base(session.plan)

    say("tokenizing the dataset")
    corpus = encode(tokenizer, rows, max_length=longest)

    say("adding the adapter")
    trainer = trainer_of(model, tokenizer, corpus)
    resumed_from = trainer.run()

    say("measuring the held-out rows")
    measured = trainer.measure(encode(tokenizer, held, max_length=longest))
    return Trained(
        model=trainer.network,
        tokenizer=tokenizer,
        resumed_from=resumed_from,
        train_loss=trainer.recent_loss(),
        validation_loss=measured.pop("loss", None),
        tokens_per_s=trainer.tokens_per_s,
        rows=len(corpus.examples),
        rows_too_long=corpus.too_long,
        metrics=measured,
    )
