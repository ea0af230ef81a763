"""KTO: desirable answers become likelier than the base has them, undesirable ones less likely.

Ethayarajh et al., 2024 (arXiv:2402.01306), equations 7 and 8 (ERRATA 2). For a single answer, with
r = log pi(y | x) / pi_ref(y | x), a sum over its tokens,

    desirable:    loss = lambda_D (1 - sigmoid(beta (r - z)))
    undesirable:  loss = lambda_U (1 - sigmoid(beta (z - r)))

z = max(0, mean r of answers paired with requests they do not belong to); no gradient flows through
it. At the first step r = z = 0, and a row's loss is half its weight.
"""

from __future__ import annotations

from dataclasses import replace

from services.training.adapters.answers import read_both, train_answers
from services.training.adapters.judged import JudgedTrainer
from services.training.adapters.session import Session, Trained, preference_recipe
from services.training.adapters.tokens import encode_judged
from services.training.class_weights import class_weights
from services.training.health import RunStopped


def train(session: Session) -> Trained:
    """Train A and B on answers that are marked desirable or undesirable.

    Raises RunStopped, naming the row, for data that are not judged or judged one way only.
    """
    recipe, say = session.plan.recipe, session.channel.working
    _, preference = preference_recipe(recipe)
    if recipe.train.batch_size < 2:
        raise RunStopped(
            "method_unavailable",
            "kto estimates z from a batch, and a batch of one row estimates nothing",
            "set method.train.batch_size to 2 or more",
        )

    rows, held = read_both(session)
    good = sum(1 for row in rows if row.desirable)
    if good in (0, len(rows)):
        raise RunStopped(
            "dataset_missing",
            f"of {len(rows)} rows {good} are desirable; kto learns from the contrast",
            "add rows of the other kind, or use method.name lora on desirable rows",
        )
    weights = class_weights(preference, desirable=good, undesirable=len(rows) - good)
    if weights.warning:
        say(f"warning: {weights.warning}")

    trained = train_answers(
        session,
        rows,
        held,
        encode=encode_judged,
        trainer_of=lambda model, tokenizer, corpus: JudgedTrainer(
            model, tokenizer, corpus, session, weights=weights
        ),
    )
    return replace(trained, metrics=trained.metrics | {"class_balance": weights.balance})
