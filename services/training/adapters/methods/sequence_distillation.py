"""Sequence distillation: the student learns the answers that a teacher gave to the rows' requests.

Kim and Rush, 2016 (arXiv:1606.07947). With y drawn from the teacher,

    loss = -log q(y | x),  whose mean is KL(p || q) and the teacher's own entropy.

So it lowers the KL of whole answers, and needs no probabilities: any teacher that answers will do,
whatever its vocabulary. Synthesis asked it; curation put its answers in the rows' place.
"""

from __future__ import annotations

from dataclasses import replace

from services.training.adapters.methods import lora
from services.training.adapters.session import Session, Trained
from services.training.adapters.teacher import distillation_of
from services.training.adapters.tokens import read_rows
from services.training.health import RunStopped


def train(session: Session) -> Trained:
    """Train A and B on the teacher's answers.

    Raises RunStopped if the teacher wrote none of the rows.
    """
    named = distillation_of(session.plan).teacher
    written = sum(1 for row in read_rows(session.plan.train) if row.origin is not None)
    if not written:
        raise RunStopped(
            "dataset_missing",
            f"no row of the dataset was written by the teacher {named.name}",
            "read why its answers were rejected in the run's synthesis, and ask another teacher",
        )
    trained = lora.train(session)
    return replace(trained, metrics=trained.metrics | {"teacher_rows": float(written)})
