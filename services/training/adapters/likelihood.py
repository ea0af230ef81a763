"""What every maximum-likelihood method does: SFT, instruction tuning and continued pretraining.

Two choices make the method. *What the loss looks at* is how rows become tokens and labels
(`encode`). *Which weights move* is a `Weights`: A and B, A and B over 4 bits, or every weight.
However it was trained, an adapter over the full-precision base is what serving takes; so that is
what is measured and fingerprinted, and what the change of weights cost is reported beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from peft import PeftConfig

from contracts.job import LoraParameters
from contracts.training import Recipe
from services.training.adapters.session import Session, Trained
from services.training.adapters.sft import CompletionTrainer
from services.training.adapters.tokens import Corpus
from services.training.health import RunStopped


@dataclass(frozen=True, slots=True)
class Start:
    """A model to train: a PEFT model to be where there is a `peft_config`."""

    model: Any
    tokenizer: Any
    peft_config: PeftConfig | None


class Weights(Protocol):
    """Which weights move."""

    loss_before: str
    """The metric for the validation loss of the model as it was trained; empty if it serves so."""

    def start(self, session: Session) -> Start:
        """Load what is to be trained."""

    def finish(self, session: Session, trainer: CompletionTrainer) -> tuple[Any, dict[str, float]]:
        """A PEFT model with TRL's fused head, as serving will have it, and what the way cost."""


class Encode(Protocol):
    """Rows of a file as tokens and labels."""

    def __call__(self, tokenizer: Any, path: Path, *, max_length: int) -> Corpus: ...


Measure = Callable[[CompletionTrainer, Any, Any], dict[str, float]]
"""(trainer, model, tokenizer) → the method's own measures on the validation rows."""


def rank_of(recipe: Recipe) -> LoraParameters:
    """The LoRA parameters of a recipe. Raises RunStopped if it has none."""
    if recipe.lora is None:
        raise RunStopped(
            "method_unavailable", "the recipe has no lora parameters", "set method.lora"
        )
    return recipe.lora


def maximise(
    session: Session, weights: Weights, *, encode: Encode, measure: Measure | None = None
) -> Trained:
    """Train by the likelihood of what `encode` labels, and hand over an adapter.

    Raises RunStopped for a named reason, Cancelled after the checkpoint is kept.
    """
    plan, say = session.plan, session.channel.working
    longest = plan.recipe.train.max_length
    rank_of(plan.recipe)
    start = weights.start(session)
    tokenizer = start.tokenizer

    say("tokenizing the dataset")
    corpus = encode(tokenizer, plan.train, max_length=longest)
    held = encode(tokenizer, plan.validation, max_length=longest) if plan.validation else None

    say("preparing the weights that move")
    trainer = CompletionTrainer(
        start.model, tokenizer, corpus, session, peft_config=start.peft_config
    )
    resumed_from = trainer.run()

    say("measuring the validation loss")
    before = trainer.mean_loss(held) if held else None
    served, metrics = weights.finish(session, trainer)
    after = before
    if weights.loss_before and held:
        after = trainer.mean_loss(held, of=served)
        metrics = metrics | ({} if before is None else {weights.loss_before: before})
    if measure is not None:
        say("measuring the method's own numbers")
        metrics = metrics | measure(trainer, served, tokenizer)

    return Trained(
        model=served,
        tokenizer=tokenizer,
        resumed_from=resumed_from,
        train_loss=trainer.recent_loss(),
        validation_loss=after,
        tokens_per_s=trainer.tokens_per_s,
        rows=len(corpus.examples),
        rows_too_long=corpus.too_long,
        metrics=metrics,
    )
