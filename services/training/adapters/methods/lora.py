"""LoRA: W = W0 + (alpha/r) B A on every linear layer of the blocks; the base stays frozen.

Hu et al., 2021 (arXiv:2106.09685). The loss is the negative log-likelihood of the answer's tokens
given the prompt.
"""

from __future__ import annotations

from peft import LoraConfig

from contracts.job import LoraParameters
from services.training.adapters.base import load_base
from services.training.adapters.session import Session, Trained
from services.training.adapters.sft import CompletionTrainer
from services.training.adapters.tokens import encode_file
from services.training.health import RunStopped


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


def train(session: Session) -> Trained:
    """Load the frozen base, add A and B, train them on the dataset's answers."""
    plan, say = session.plan, session.channel.working
    if plan.recipe.lora is None:
        raise RunStopped(
            "method_unavailable", "the recipe has no lora parameters", "set method.lora"
        )

    say("loading the base")
    model, tokenizer = load_base(plan)

    say("tokenizing the dataset")
    corpus = encode_file(tokenizer, plan.train, max_length=plan.recipe.train.max_length)

    say("adding the adapter")
    trainer = CompletionTrainer(
        model, tokenizer, corpus, session, peft_config=lora_config(plan.recipe.lora)
    )
    resumed_from = trainer.run()

    validation_loss = None
    if plan.validation is not None:
        say("measuring the validation loss")
        rows = encode_file(tokenizer, plan.validation, max_length=plan.recipe.train.max_length)
        validation_loss = trainer.mean_loss(rows)

    return Trained(
        model=trainer.network,
        tokenizer=tokenizer,
        resumed_from=resumed_from,
        train_loss=trainer.recent_loss(),
        validation_loss=validation_loss,
        tokens_per_s=trainer.tokens_per_s,
        rows=len(corpus.examples),
        rows_too_long=corpus.too_long,
    )
