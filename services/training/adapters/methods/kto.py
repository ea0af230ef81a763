"""KTO: desirable answers become likelier than the base has them, undesirable ones less likely.

Ethayarajh et al., 2024 (arXiv:2402.01306), equations 7 and 8 (ERRATA 2). For a single answer, with
r = log pi(y | x) / pi_ref(y | x), a sum over its tokens,

    desirable:    loss = lambda_D (1 - sigmoid(beta (r - z)))
    undesirable:  loss = lambda_U (1 - sigmoid(beta (z - r)))

z = max(0, mean r of answers paired with requests they do not belong to); no gradient flows through
it. At the first step r = z = 0, and a row's loss is half its weight.
"""

from __future__ import annotations

from services.training.adapters.base import load_base
from services.training.adapters.judged import JudgedTrainer
from services.training.adapters.session import Session, Trained, preference_recipe
from services.training.adapters.tokens import encode_judged, fitting_rows
from services.training.class_weights import class_weights
from services.training.health import RunStopped


def train(session: Session) -> Trained:
    """Train A and B on answers that are marked desirable or undesirable.

    Raises RunStopped, naming the row, for data that are not judged or judged one way only.
    """
    plan, say = session.plan, session.channel.working
    recipe, longest = plan.recipe, plan.recipe.train.max_length
    _, preference = preference_recipe(recipe)
    if recipe.train.batch_size < 2:
        raise RunStopped(
            "method_unavailable",
            "kto estimates z from a batch, and a batch of one row estimates nothing",
            "set method.train.batch_size to 2 or more",
        )

    say("reading the judged rows")
    rows = fitting_rows(plan.train, recipe.method)
    held = fitting_rows(plan.validation, recipe.method) if plan.validation is not None else []
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

    say("loading the base")
    model, tokenizer = load_base(plan)

    say("tokenizing the dataset")
    corpus = encode_judged(tokenizer, rows, max_length=longest)

    say("adding the adapter")
    trainer = JudgedTrainer(model, tokenizer, corpus, session, weights=weights)
    resumed_from = trainer.run()

    say("measuring the held-out rows")
    measured = trainer.measure(encode_judged(tokenizer, held, max_length=longest))
    return Trained(
        model=trainer.network,
        tokenizer=tokenizer,
        resumed_from=resumed_from,
        train_loss=trainer.recent_loss(),
        validation_loss=measured.pop("loss", None),
        tokens_per_s=trainer.tokens_per_s,
        rows=len(corpus.examples),
        rows_too_long=corpus.too_long,
        metrics=measured | {"class_balance": weights.balance},
    )
