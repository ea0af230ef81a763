"""Logit distillation: at every token of an answer the student learns the teacher's probabilities.

Hinton et al., 2015 (arXiv:1503.02531). With p the teacher's and q the student's distribution over
the vocabulary, softened by the temperature T, a the soft share and y the row's token,

    loss = a T^2 KL(p_T || q_T) + (1 - a) (-log q(y))

a mean over completion tokens. The teacher is frozen, and both read the same token ids. The student
is a LoRA adapter on the job's base, which may be a depth-pruned copy of the teacher.
"""

from __future__ import annotations

from services.training.adapters import world
from services.training.adapters.base import load_base
from services.training.adapters.distiller import DistillingTrainer
from services.training.adapters.session import Session, Trained
from services.training.adapters.teacher import distillation_of, load_teacher
from services.training.adapters.tokens import IGNORED, Corpus, encode_file
from services.training.plan import TrainerPlan


def train(session: Session) -> Trained:
    """Train A and B towards the teacher's probabilities and the rows' answers.

    Raises RunStopped for a teacher that is not there, not the one named, or of other tokens.
    """
    plan, say = session.plan, session.channel.working
    longest = plan.recipe.train.max_length
    distillation = distillation_of(plan)
    world.require_whole(plan.recipe.method)

    say("loading the teacher")
    teacher = load_teacher(plan)

    say("loading the base")
    model, tokenizer = load_base(plan)

    say("tokenizing the dataset")
    corpus = encode_file(tokenizer, plan.train, max_length=longest)

    say("adding the adapter")
    trainer = DistillingTrainer(
        model, tokenizer, corpus, session, teacher=teacher, distillation=distillation
    )
    resumed_from = trainer.run()

    measured: dict[str, float] = {}
    if plan.validation is not None:
        say("measuring the held-out rows against the teacher")
        measured = trainer.measure(encode_file(tokenizer, plan.validation, max_length=longest))
    sizes = {
        "student_parameters": float(trainer.network.get_base_model().num_parameters()),
        "distilled_tokens": _tokens_seen(corpus, plan),
    }

    return Trained(
        model=trainer.network,
        tokenizer=tokenizer,
        resumed_from=resumed_from,
        train_loss=trainer.recent_loss(),
        validation_loss=measured.pop("loss", None),
        tokens_per_s=trainer.tokens_per_s,
        rows=len(corpus.examples),
        rows_too_long=corpus.too_long,
        metrics=measured | sizes,
    )


def _tokens_seen(corpus: Corpus, plan: TrainerPlan) -> float:
    """Completion tokens of all steps, each row as often as the others."""
    completion = sum(label != IGNORED for e in corpus.examples for label in e.labels)
    train = plan.recipe.train
    rows = plan.steps * train.batch_size * train.gradient_accumulation
    return completion * rows / len(corpus.examples)
