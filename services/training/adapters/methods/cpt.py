"""Continued pretraining: the base reads the domain's texts, and rehearses what it must not forget.

Gururangan et al., 2020 (arXiv:2004.10964). The loss is the negative log-likelihood of every token
of the texts, packed end to end so that none is padding. `general` documents and conversations among
the rows are the rehearsal (`curation.rehearsal_share`). Their perplexity before and after is how
much was forgotten, that of the `domain` documents how much was learned.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from contracts.data import Row
from services.training.adapters.likelihood import maximise
from services.training.adapters.session import Session, Trained
from services.training.adapters.sft import CompletionTrainer
from services.training.adapters.texts import encode_texts, pack_rows
from services.training.adapters.tokens import fitting_rows
from services.training.adapters.weights import weights_of


def train(session: Session) -> Trained:
    """Train on the dataset's texts.

    Raises RunStopped, naming the row, for data without a domain to learn.
    """
    plan = session.plan
    fitting_rows(plan.train, plan.recipe.method)
    held = fitting_rows(plan.validation, plan.recipe.method) if plan.validation else []
    return maximise(
        session,
        weights_of(plan.recipe),
        encode=encode_texts,
        measure=partial(perplexities, held, plan.recipe.train.max_length),
    )


def perplexities(
    rows: list[Row], max_length: int, trainer: CompletionTrainer, model: Any, tokenizer: Any
) -> dict[str, float]:
    """Perplexity per token of domain and of general rows, with the adapter and, `base_`, without.

    A kind of which there is no row has no entry.
    """
    kinds = {
        "domain": [row for row in rows if row.document == "domain"],
        "general": [row for row in rows if row.document != "domain"],
    }
    found = {}
    for kind, chosen in kinds.items():
        corpus = pack_rows(tokenizer, chosen, max_length=max_length)
        loss = trainer.mean_loss(corpus, of=model)
        with model.disable_adapter():
            base = trainer.mean_loss(corpus, of=model)
        if loss is not None and base is not None:
            found[f"{kind}_perplexity"] = math.exp(loss)
            found[f"base_{kind}_perplexity"] = math.exp(base)
    return found
